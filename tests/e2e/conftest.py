"""Small data sets, weights and a command line for the end-to-end tests."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from shapes import Coco, draw_shapes

from fpnkit import zoo
from fpnkit.cli import main
from fpnkit.inference import predictor as predict
from fpnkit.weights.checkpoint import ModelCard, load_weights, save_weights

LITE = "faster_rcnn_lite0_fpn"


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str

    def refuses(self, code: int, *mentions: object) -> None:
        """Assert one line of error, this exit code, and that the line holds these words."""
        assert self.code == code, self.err or self.out
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("fpnkit: error: ")
        assert "Traceback" not in lines[0]
        for mention in mentions:
            assert str(mention) in lines[0]


@pytest.fixture
def cli(capsys) -> Callable[..., Outcome]:
    """The command line in this process: words -> outcome."""

    def run(*words: object) -> Outcome:
        capsys.readouterr()
        try:
            code = main([str(word) for word in words])
        except SystemExit as exit_:
            code = int(exit_.code or 0)
        return Outcome(code, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def start() -> Callable[..., subprocess.Popen]:
    """The command line as a process of its own, leader of its own process group."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def run(*words: object) -> subprocess.Popen:
        command = [sys.executable, "-m", "fpnkit", *map(str, words)]
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(command, env=environment, text=True, start_new_session=True, **streams)

    return run


SMALL = {"short_side": 96, "long_side": 128}
"""Images that cost little, for what does not depend on their size."""


@pytest.fixture(scope="session")
def weights(tmp_path_factory) -> Path:
    """An untrained small detector of one class, `person`, which finds some hundred of them in small images."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "untrained.safetensors"
    spec = zoo.preset(LITE)
    card = ModelCard.of_spec(replace(spec, preprocess=replace(spec.preprocess, **SMALL)), ("person",))
    save_weights(path, zoo.build(LITE, 1), card)
    return path


@pytest.fixture(scope="session")
def person(tmp_path_factory) -> Path:
    """The weights of the shipped model for images of a third of its own size, in which it still finds each person."""
    path = tmp_path_factory.mktemp("person") / "person.safetensors"
    detector, card = load_weights(predict.find_model("default"))
    preprocess = replace(card.preprocess, short_side=240, long_side=320)
    save_weights(path, detector, ModelCard.of_spec(replace(card.spec, preprocess=preprocess), card.classes))
    return path


@pytest.fixture(scope="session")
def exported(person, tmp_path_factory) -> Path:
    """`person` as ONNX with at most 10 detections, by the command: a minute, so once; not to be changed."""
    folder = tmp_path_factory.mktemp("export") / "person"
    assert main(["export", str(person), "--detections", "10", "--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="session")
def untrained(weights) -> predict.Predictor:
    """The detector of `weights`, loaded once."""
    return predict.load(weights, device="cpu")


@pytest.fixture
def loaded(monkeypatch, untrained) -> predict.Predictor:
    """Every command gets the untrained detector, whatever --model says."""
    monkeypatch.setattr(predict, "load", lambda *given, **named: untrained)
    return untrained


@pytest.fixture
def coco(tmp_path) -> Coco:
    """Two images of shapes, for a test to spoil."""
    return draw_shapes(tmp_path / "coco", 2)


@pytest.fixture(scope="session")
def shapes(tmp_path_factory) -> tuple[Coco, Coco]:
    """Twelve training and two validation images of shapes; not to be changed."""
    folder = tmp_path_factory.mktemp("shapes")
    return draw_shapes(folder / "train", 12), draw_shapes(folder / "val", 2, seed=1)


@pytest.fixture
def photo(tmp_path) -> Path:
    """A picture that can be read."""
    path = tmp_path / "photo.jpg"
    Image.linear_gradient("L").resize((64, 48)).convert("RGB").save(path)
    return path


@pytest.fixture(scope="session")
def read_json() -> Callable[[Path], object]:
    """A JSON file's content, read strictly: NaN and Infinity are not JSON."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return lambda path: json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


@pytest.fixture(scope="session")
def training(shapes) -> Callable[..., tuple]:
    """The words of a short training on the shapes: six steps in two epochs."""
    train, val = shapes
    data = ("--data", train.json, "--images", train.images, "--val", val.json, "--val-images", val.images)
    recipe = ("--model", LITE, "--epochs", 2, "--batch-size", 4, "--crop", 96, "--lr", 2e-3, "--warmup-steps", 2)
    machine = ("--device", "cpu", "--precision", "float32", "--workers", 0)
    return lambda out, *more: ("train", *data, *recipe, *machine, "--out", out, *more)
