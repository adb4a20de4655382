"""fpnkit import and fpnkit export-weights."""

from __future__ import annotations

import argparse
import pickle

import pytest
import torch
from theirs import BLOCKS, Detectron2, assert_equal, torchvision_model

import fpnkit
from fpnkit.detectors import FasterRCNN
from fpnkit.weights.checkpoint import load_weights

NAMES = ("cat", "dog", "owl")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """As torchvision's training script leaves it, with its arguments."""
    path = tmp_path_factory.mktemp("theirs") / "model_25.pth"
    content = {"model": torchvision_model("r50").state_dict(), "epoch": 25, "args": argparse.Namespace(lr=0.02)}
    torch.save(content, path)
    return path


def test_commands_there_and_back(checkpoint, tmp_path, cli):
    ours, back = tmp_path / "ours.safetensors", tmp_path / "back.pth"
    done = cli("import", checkpoint, "--from", "torchvision", "--classes", *NAMES, "--norm-eps", 1e-5, "--out", ours)
    assert (done.code, done.err) == (0, "")
    assert "torchvision_r50_fpn, 3 classes" in done.out
    assert load_weights(ours)[1].classes == NAMES
    assert isinstance(fpnkit.load(ours).detector, FasterRCNN)
    assert cli("export-weights", ours, "--to", "torchvision", "--out", back).code == 0
    state, again = torch.load(checkpoint, weights_only=False)["model"], torch.load(back, weights_only=True)
    assert state.keys() == again.keys()
    assert torch.equal(
        again["roi_heads.box_predictor.cls_score.weight"], state["roi_heads.box_predictor.cls_score.weight"]
    )
    cli("export-weights", ours, "--to", "detectron2", "--out", back).refuses(2, "not a model of detectron2")
    cli("export-weights", "default", "--to", "detectron2", "--out", back).refuses(2, "train detectron2_r50_fpn")


def test_detectron2_checkpoints_keep_their_tensors_under_model(tmp_path, cli):
    theirs, ours, back = tmp_path / "model_final.pth", tmp_path / "ours.safetensors", tmp_path / "back.pth"
    torch.save({"model": Detectron2(BLOCKS["r50"], stride_in_1x1=True).state, "iteration": 9}, theirs)
    assert cli("import", theirs, "--from", "detectron2", "--classes", *NAMES, "--out", ours).code == 0
    assert cli("export-weights", ours, "--to", "detectron2", "--out", back).code == 0
    assert_equal(torch.load(back, weights_only=True)["model"], torch.load(theirs, weights_only=True)["model"])


class Boom:
    def __reduce__(self):
        return open, ("/dev/null", "w")


def test_bad_imports_say_what_to_do(checkpoint, tmp_path, cli):
    out = ("--out", tmp_path / "out.safetensors")
    cli("import", checkpoint, "--from", "torchvision", *out).refuses(
        2, "has 3 classes", "name all, in its order: --classes NAMES"
    )
    cli("import", checkpoint, "--from", "detectron2", *out).refuses(3, checkpoint, "not a detectron2 detector")
    cli("import", checkpoint, "--from", "torchvision", "--rgb", *out).refuses(2, "--rgb is for detectron2")
    cli("import", checkpoint, "--from", "torchvision", "--out", tmp_path / "out.pt").refuses(2, ".safetensors")
    pickled = tmp_path / "model.pkl"
    pickled.write_bytes(pickle.dumps({"model": {}}))
    cli("import", pickled, "--from", "detectron2", *out).refuses(3, pickled, "not opened here", "torch.save")
    bomb = tmp_path / "bomb.pth"
    torch.save({"model": Boom()}, bomb)
    cli("import", bomb, "--from", "torchvision", *out).refuses(3, bomb, "would run code")
    assert not (tmp_path / "out.safetensors").exists()
