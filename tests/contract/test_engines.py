"""One contract for every engine: arrays in, named arrays out, the same from all, also from a copy."""

from __future__ import annotations

import copy
import pickle
from functools import cache
from pathlib import Path

import graphs
import numpy as np
import pytest
import tiny
import torch

from fpnkit.data.pixels import PreprocessConfig
from fpnkit.errors import ConfigError
from fpnkit.graph.exported import Exported
from fpnkit.graph.write import write_graph
from fpnkit.inference.engines import Engine
from fpnkit.inference.graph_cache import open_exported
from fpnkit.inference.predictor import Predictor
from fpnkit.inference.torch_engine import TorchEngine
from fpnkit.outputs import Postprocess

PREPROCESS = PreprocessConfig(short_side=96, long_side=128, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25))
ENGINES = ("torch", "torch, two stages", "onnxruntime", "openvino")
CLASSES = ("a", "b", "c")


def some_images() -> list[np.ndarray]:
    """Smooth random images of three shapes, larger and smaller than the network's input."""
    dice = torch.Generator().manual_seed(0)
    made = []
    for size in ((150, 200), (60, 44), (96, 128)):
        image = torch.nn.functional.interpolate(torch.rand(1, 3, 6, 6, generator=dice), size, mode="bilinear")
        made.append((255 * image[0]).permute(1, 2, 0).to(torch.uint8).contiguous().numpy())
    return made


@pytest.fixture(scope="module", autouse=True)
def shared_graphs():
    with graphs.each_made_once():
        yield


detector = cache(tiny.cells)


def written(folder: Path, **changes) -> Path:
    """A folder with the detector's graph."""
    description = {"format": "onnx", "precision": "float32", "pixels": True, "resizes": False, "size_hw": None}
    model = {"model": "tiny", "classes": CLASSES, "preprocess": PREPROCESS}
    model |= {"postprocess": detector().postprocess, "outputs": detector().outputs}
    write_graph(folder, detector(), Exported(**{**description, **model, **changes}))
    return folder


@pytest.fixture(scope="module")
def engines(tmp_path_factory) -> dict[str, Engine]:
    """One detector in every engine, and one of two stages in the one that proposes."""
    folder = written(tmp_path_factory.mktemp("graph"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FPNKIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        of_graphs = {name: open_exported(folder, engine=name)[0] for name in ("onnxruntime", "openvino")}
        networks = {"torch": detector(), "torch, two stages": tiny.detector()}
        yield {name: TorchEngine(each, torch.device("cpu"), "float32") for name, each in networks.items()} | of_graphs


def assert_same(found, wanted, atol: float = 1e-3) -> None:
    assert len(found) == len(wanted)
    for ours, theirs in zip(found, wanted, strict=True):
        assert list(ours) == list(theirs)
        for name, values in theirs.items():
            assert ours[name].dtype == values.dtype, name
            np.testing.assert_allclose(ours[name], values, atol=atol, rtol=1e-3, err_msg=name)


def test_every_engine_finds_the_same_in_each_images_own_pixels(engines) -> None:
    images = some_images()
    wanted = engines["torch"].detect(images, PREPROCESS)
    for each, image in zip(wanted, images, strict=True):
        assert len(each["scores"]) >= 5
        assert (np.diff(each["scores"]) <= 0).all()
        height, width = image.shape[:2]
        assert (each["boxes_xyxy"] >= 0).all()
        assert (each["boxes_xyxy"] <= [width, height, width, height]).all()
    assert wanted[0]["boxes_xyxy"].max() > 128  # of the image, not of the network's input
    for name in ENGINES[2:]:
        assert_same(engines[name].detect(images, PREPROCESS), wanted)


def test_outputs_are_as_announced_by_every_engine(engines) -> None:
    assert len({(engines[name].outputs, engines[name].postprocess) for name in ENGINES if "two" not in name}) == 1
    for engine in engines.values():
        for found in engine.detect(some_images(), PREPROCESS):
            assert list(found) == [spec.name for spec in engine.outputs]
            for spec in engine.outputs:
                assert found[spec.name].dtype == spec.dtype
                assert found[spec.name].shape == (len(found["scores"]), *spec.shape)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
@pytest.mark.parametrize("name", ENGINES)
def test_a_copy_finds_the_same(engines, name, copied) -> None:
    images, predictor = some_images(), Predictor(engines[name], CLASSES, PREPROCESS, scales=(0.5, 1))
    assert_same(copied(engines[name]).detect(images, PREPROCESS), engines[name].detect(images, PREPROCESS), atol=0)
    other = copied(predictor)
    assert (other.classes, other.scales, other.preprocess) == (predictor.classes, predictor.scales, PREPROCESS)
    for mine, wanted in zip(other.batch(images), predictor.batch(images), strict=True):
        assert mine.detections() == wanted.detections()
    result = predictor(images[0])
    assert copied(result).detections() == result.detections()


@pytest.mark.parametrize("name", ENGINES)
def test_no_images_no_results(engines, name) -> None:
    assert Predictor(engines[name], CLASSES, PREPROCESS).batch([]) == []


@pytest.mark.parametrize("name", ENGINES)
def test_proposals_and_steps_are_given_where_there_are_any(engines, name) -> None:
    engine, images = engines[name], some_images()[:1]
    ((proposals, found),) = engine.detect_and_propose(images, PREPROCESS, proposals=20)
    assert_same([found], engine.detect(images, PREPROCESS), atol=1e-4)
    two_stage = "two stages" in name
    assert (proposals is not None) == two_stage
    if two_stage:
        assert proposals["boxes_xyxy"].shape == (20, 4)
        assert proposals["boxes_xyxy"].max() > 128
    steps = engine.time_steps(images, PREPROCESS)
    assert len(steps) == (4 if two_stage else name == "torch")
    if not two_stage:
        with pytest.raises(ConfigError, match="no pyramid levels" if name == "torch" else "does not show its features"):
            engine.inspect(images, PREPROCESS)


@pytest.mark.parametrize("name", ENGINES)
def test_other_outputs_reach_results_and_their_plain_values(engines, name) -> None:
    result = Predictor(engines[name], CLASSES, PREPROCESS)(some_images()[0], min_score=0.0)
    others = engines[name].outputs[3:]
    assert list(result.more) == [spec.name for spec in others]
    assert len(result) > 0
    for spec in others:
        assert getattr(result, spec.name) is result.more[spec.name]
        assert {type(each[spec.singular]) for each in result.detections()} <= {int, float, list}
    with pytest.raises(AttributeError, match="no 'marks'"):
        _ = result.marks


def test_an_engine_of_a_network_that_learns_follows_it_and_gives_its_mode_back() -> None:
    learning = tiny.detector().train()
    engine, copying = (TorchEngine(learning, torch.device("cpu"), "float32", live=each) for each in (True, False))
    before = engine.detect(some_images(), PREPROCESS)
    assert learning.training
    assert_same(before, copying.detect(some_images(), PREPROCESS))
    learning.postprocess = Postprocess(detections=2)
    assert [len(each["scores"]) for each in engine.detect(some_images(), PREPROCESS)] == [2, 2, 2]
    assert_same(copying.detect(some_images(), PREPROCESS), before)


@pytest.mark.parametrize("format", ["onnx", "openvino"])
def test_a_graph_that_resizes_restores_every_output_in_pixels(tmp_path, format, monkeypatch) -> None:
    monkeypatch.setenv("FPNKIT_CACHE", str(tmp_path / "cache"))
    folder, images = tmp_path / "graph", some_images()
    folder.mkdir()
    engine, card = open_exported(written(folder, format=format, resizes=True))
    assert card.outputs == detector().outputs
    model = TorchEngine(detector(), torch.device("cpu"), "float32")
    wanted = [each for image in images for each in model.detect([image], PREPROCESS)]
    found = engine.detect(images, PREPROCESS)
    assert_same(found[2:], wanted[2:])  # of the size that needs no resizing
    for mine, theirs in zip(found, wanted, strict=True):
        both = np.intersect1d(mine["cells"], theirs["cells"])  # resized to pixels that differ a little
        assert len(both) >= 0.8 * len(theirs["cells"])
        mine, theirs = ({name: each[name][np.argsort(each["cells"])] for name in each} for each in (mine, theirs))
        mine, theirs = ({name: each[name][np.isin(each["cells"], both)] for name in each} for each in (mine, theirs))
        assert_same([mine], [theirs], atol=0.5)
    with pytest.raises(ConfigError, match="resizes images by itself"):
        engine.detect(images, PreprocessConfig(short_side=50, long_side=60, mean=(0.5,) * 3, std=(0.5,) * 3))
