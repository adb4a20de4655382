"""One contract for every engine: arrays in, named arrays out, the same from all, also from a copy."""

from __future__ import annotations

import copy
import pickle
from functools import partial

import numpy as np
import pytest
import tiny
import torch

from fpnkit.data.pixels import PreprocessConfig
from fpnkit.errors import ConfigError
from fpnkit.graph.exported import Exported, read_card
from fpnkit.graph.write import write_graph
from fpnkit.inference.engines import Engine
from fpnkit.inference.graph_cache import open_exported
from fpnkit.inference.predictor import Predictor
from fpnkit.inference.torch_engine import TorchEngine
from fpnkit.outputs import Postprocess

PREPROCESS = PreprocessConfig(short_side=96, long_side=128, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25))
DETECTORS = {"Faster R-CNN": tiny.detector, "without pyramid": tiny.cells}
ENGINES = ("torch", "onnxruntime", "openvino")
CLASSES = ("a", "b", "c")


def some_images() -> list[np.ndarray]:
    """Smooth random images of three shapes, larger and smaller than the network's input."""
    dice = torch.Generator().manual_seed(0)
    made = []
    for size in ((150, 200), (60, 44), (96, 128)):
        image = torch.nn.functional.interpolate(torch.rand(1, 3, 6, 6, generator=dice), size, mode="bilinear")
        made.append((255 * image[0]).permute(1, 2, 0).to(torch.uint8).contiguous().numpy())
    return made


@pytest.fixture(scope="module", params=DETECTORS)
def engines(request, tmp_path_factory) -> dict[str, Engine]:
    """One detector in every engine; the graph is opened with the runtimes' own caches in a temporary folder."""
    detector, folder = DETECTORS[request.param](), tmp_path_factory.mktemp("graph")
    description = Exported(
        format="onnx",
        precision="float32",
        pixels=True,
        resizes=False,
        size_hw=None,
        model="tiny",
        classes=CLASSES,
        preprocess=PREPROCESS,
        postprocess=detector.postprocess,
        outputs=detector.outputs,
    )
    write_graph(folder, detector, description)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FPNKIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        graphs = {name: open_exported(folder, engine=name)[0] for name in ENGINES[1:]}
        yield {"torch": TorchEngine(detector, torch.device("cpu"), "float32"), **graphs}


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
    for name in ENGINES[1:]:
        assert_same(engines[name].detect(images, PREPROCESS), wanted)


def test_outputs_are_as_announced_by_every_engine(engines) -> None:
    assert len({(engine.outputs, engine.postprocess) for engine in engines.values()}) == 1
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
    two_stage = name == "torch" and hasattr(engine.detector, "rpn")
    assert (proposals is not None) == two_stage
    if two_stage:
        assert proposals["boxes_xyxy"].shape == (20, 4)
        assert proposals["boxes_xyxy"].max() > 128
    steps = engine.time_steps(images, PREPROCESS)
    assert len(steps) == (0 if name != "torch" else 4 if two_stage else 1)
    if not two_stage:
        with pytest.raises(ConfigError, match="no pyramid levels" if name == "torch" else "does not show its features"):
            engine.inspect(images, PREPROCESS)


def test_other_outputs_reach_results_and_their_plain_values(engines) -> None:
    result = Predictor(engines["torch"], CLASSES, PREPROCESS)(some_images()[0], min_score=0.0)
    names = [spec.name for spec in engines["torch"].outputs[3:]]
    assert list(result.more) == names
    assert len(result) > 0
    for spec in engines["torch"].outputs[3:]:
        assert getattr(result, spec.name) is result.more[spec.name]
        assert {type(each[spec.singular]) for each in result.detections()} <= {int, float, list}
    with pytest.raises(AttributeError, match="no 'marks'"):
        _ = result.marks


def test_an_engine_of_a_network_that_learns_follows_it_and_gives_its_mode_back() -> None:
    detector = tiny.detector().train()
    engine, copying = (TorchEngine(detector, torch.device("cpu"), "float32", live=each) for each in (True, False))
    before = engine.detect(some_images(), PREPROCESS)
    assert detector.training
    assert_same(before, copying.detect(some_images(), PREPROCESS))
    detector.postprocess = Postprocess(detections=2)
    assert [len(each["scores"]) for each in engine.detect(some_images(), PREPROCESS)] == [2, 2, 2]
    assert_same(copying.detect(some_images(), PREPROCESS), before)


@pytest.mark.parametrize("format", ["onnx", "openvino"])
def test_a_graph_that_resizes_restores_every_output_in_pixels(tmp_path, format, monkeypatch) -> None:
    monkeypatch.setenv("FPNKIT_CACHE", str(tmp_path / "cache"))
    detector, folder = tiny.cells(), tmp_path / "graph"
    folder.mkdir()
    make = partial(Exported, format=format, precision="float32", pixels=True, size_hw=None, model="tiny")
    description = make(
        resizes=True,
        classes=CLASSES,
        preprocess=PREPROCESS,
        postprocess=detector.postprocess,
        outputs=detector.outputs,
    )
    write_graph(folder, detector, description)
    assert read_card(folder).outputs == detector.outputs
    engine = open_exported(folder)[0]
    images = some_images()
    model = TorchEngine(detector, torch.device("cpu"), "float32")
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
