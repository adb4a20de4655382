"""One graph in every runtime: any batch, height and width, and the very same detections."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from torch import nn

from fpnkit.data.preprocess import PreprocessConfig
from fpnkit.detectors import RPN, FasterRCNN, FastRCNN
from fpnkit.graph.deploy import DeployGraph
from fpnkit.graph.exported import Exported
from fpnkit.graph.runtimes import OnnxRuntime, OpenVinoRuntime, Runtime, TorchRuntime
from fpnkit.graph.write import write_graph, write_onnx

PREPROCESS = PreprocessConfig(short_side=96, long_side=128, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25))
SIZES = [(1, 128, 160), (3, 97, 131), (2, 160, 128), (1, 33, 40), (1, 2, 2), (5, 96, 96)]
RUNTIMES = {
    "onnxruntime": ("onnx", OnnxRuntime),
    "openvino of onnx": ("onnx", OpenVinoRuntime),
    "openvino": ("openvino", OpenVinoRuntime),
    "torch": ("torch", TorchRuntime),
}


detector = cache(tiny.detector)


def description(**changes) -> Exported:
    numbers = {"min_score": 0.05, "nms_iou": 0.5, "detections": 30}
    graph = {"format": "onnx", "precision": "float32", "pixels": True, "resizes": False, "size": None}
    names = {"model": "tiny", "classes": ("a", "b", "c"), "preprocess": PREPROCESS}
    return Exported(**{**numbers, **graph, **names, **changes})


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Keyword arguments of `description` -> the folder with that graph, written once."""
    made: dict[tuple, Path] = {}

    def write(**changes) -> Path:
        key = tuple(sorted(changes.items()))
        if key not in made:
            made[key] = tmp_path_factory.mktemp("exported")
            write_graph(made[key], detector(), description(**changes))
        return made[key]

    return write


def runtime(written, which: str, **changes) -> Runtime:
    kind, make = RUNTIMES[which]
    exported = description(format=kind, **changes)
    return make(written(format=kind, **changes) / exported.graph)


def some_pixels(count: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Smooth random images and sizes that leave some padding, which holds junk."""
    dice = torch.Generator().manual_seed(height + width)
    images = nn.functional.interpolate(torch.rand(count, 3, 6, 6, generator=dice), (height, width), mode="bilinear")
    sizes = torch.tensor([height, width]) - (torch.rand(count, 2, generator=dice) * min(height, width) / 8).floor()
    return (255 * images).permute(0, 2, 3, 1).to(torch.uint8).contiguous().numpy(), sizes.numpy()


def wanted(images: np.ndarray, sizes: np.ndarray, *, pixels: bool = True) -> list[np.ndarray]:
    graph = DeployGraph(detector(), PREPROCESS, pixels=pixels).eval()
    with torch.no_grad():
        return [each.numpy() for each in graph(torch.from_numpy(images), torch.from_numpy(sizes))]


def assert_same(found, reference) -> None:
    assert len(found) == len(reference)
    for ours, theirs in zip(found, reference, strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: "x".join(map(str, size)))
@pytest.mark.parametrize("which", RUNTIMES)
def test_every_runtime_finds_the_same_in_any_batch_height_and_width(written, which, size) -> None:
    given = some_pixels(*size)
    reference = wanted(*given)
    assert min(size) < 96 or reference[-1].min() >= 5  # there is something to find
    assert_same(runtime(written, which)(*given), reference)


@pytest.mark.parametrize("which", ["onnxruntime", "torch"])
def test_normalised_input(written, which) -> None:
    images = torch.randn(2, 3, 96, 128).numpy()
    sizes = np.array([[96, 128], [90, 100]], dtype=np.float32)
    assert_same(runtime(written, which, pixels=False)(images, sizes), wanted(images, sizes, pixels=False))


@pytest.mark.parametrize("which", ["onnxruntime", "openvino"])
def test_one_fixed_size(written, which) -> None:
    run = runtime(written, which, size=(96, 128))
    for count in (1, 3):
        given = some_pixels(count, 96, 128)
        assert_same(run(*given), wanted(*given))
    with pytest.raises(Exception, match=r"\d"):
        run(*some_pixels(1, 128, 96))


def test_boxes_keep_float32_where_a_runtime_computes_in_bfloat16(written) -> None:
    """OpenVINO leaves in float32 what results are made of since the last large layer, and rounds all else."""
    import openvino

    graph = openvino.Core().read_model(written(format="onnx") / "model.onnx")
    exact: set[str] = set()
    left = list(graph.get_results())
    while left:
        for source in (port.get_source_output().get_node() for port in left.pop().inputs()):
            large = source.get_type_name() in ("Convolution", "MatMul", "Interpolate")
            if not large and source.get_friendly_name() not in exact:
                exact.add(source.get_friendly_name())
                left.append(source)
    pooling = [node for node in graph.get_ops() if node.get_type_name() == "ROIAlign"]
    assert len(pooling) == 4
    rois = {node.input(1).get_source_output().get_node().get_friendly_name() for node in pooling}
    assert rois <= exact


def test_pooled_maps_are_not_brought_together_and_files_name_no_place(written) -> None:
    import onnx

    model = onnx.load(written(format="onnx") / "model.onnx")
    readers = {name: node for node in model.graph.node for name in node.input}
    pooled = [node.output[0] for node in model.graph.node if node.op_type == "RoiAlign"]
    assert [readers[name].op_type for name in pooled] == ["Flatten"] * 4
    assert not any(node.metadata_props for node in model.graph.node)
    assert str(Path.cwd()).encode() not in model.SerializeToString()


@pytest.mark.parametrize("kind", ["onnx", "openvino"])
def test_int8_quantises_convolutions_and_leaves_the_tail_alone(tmp_path, kind) -> None:
    import onnx

    samples = [some_pixels(1, 96, 128 + 32 * number) for number in range(4)]
    exported = description(format=kind, precision="int8")
    write_graph(tmp_path, detector(), exported, samples)
    make = OpenVinoRuntime if kind == "openvino" else OnnxRuntime
    run = make(tmp_path / exported.graph)
    for size in SIZES[:3]:
        given = some_pixels(*size)
        (_, scores, *_, counts), (_, wanted_scores, *_, wanted_counts) = run(*given), wanted(*given)
        assert (np.abs(counts - wanted_counts) <= 5).all()
        assert np.abs(scores[:, 0] - wanted_scores[:, 0]).max() < 0.2
    if kind == "onnx":
        graph = onnx.load(tmp_path / exported.graph).graph
        reads = {output: set(node.input) for node in graph.node for output in node.output}
        kinds = {output: node.op_type for node in graph.node for output in node.output}
        convolutions = [node for node in graph.node if node.op_type == "Conv"]
        fed = [kinds.get(node.input[0]) for node in convolutions]
        assert fed.count("DequantizeLinear") > len(fed) / 2, fed
        assert "TopK" not in {kinds.get(name) for name in before_quantisation(reads, kinds)}


def before_quantisation(reads: dict[str, set[str]], kinds: dict[str, str]) -> set[str]:
    """What QuantizeLinear nodes are computed from."""
    found: set[str] = set()
    left = [name for output, names in reads.items() if kinds[output] == "QuantizeLinear" for name in names]
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            left += reads.get(name, ())
    return found


def in_onnx_runtime(path: Path, *given: np.ndarray) -> list[np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path)
    return session.run(None, dict(zip([each.name for each in session.get_inputs()], given, strict=True)))


def in_openvino(path: Path, *given: np.ndarray) -> list[np.ndarray]:
    import openvino

    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return list(compiled(list(given)).values())


def shared(found, reference) -> float:
    """The share of boxes of either that the other has, too, with its score and the rest, wherever it stands there."""
    *ours, our_counts = (np.asarray(each, dtype=np.float64) for each in found)
    *theirs, counts = (np.asarray(each, dtype=np.float64) for each in reference)
    shares = []
    for index, pair in enumerate(zip(our_counts.astype(int), counts.astype(int), strict=True)):
        rows = [
            np.concatenate([each[index, :count].reshape(count, -1) for each in side], axis=1)
            for side, count in zip((ours, theirs), pair, strict=True)
        ]
        same = np.isclose(rows[0][:, None], rows[1][None], atol=1e-2, rtol=1e-3).all(axis=2)
        shares += [same.any(axis=side).mean() for side in (0, 1)]
    return min(shares)


def assert_exports(path: Path, model, *more: np.ndarray, least: float = 0.99) -> None:
    """The same from ONNX Runtime, OpenVINO and PyTorch, at sizes that it was not traced at."""
    write_onnx(path, model, PREPROCESS)
    graph = DeployGraph(model, PREPROCESS).eval()
    for count, height, width in [(2, 128, 160), (1, 97, 131)]:
        given = [*some_pixels(count, height, width), *(each[:count] for each in more)]
        with torch.no_grad():
            reference = [each.numpy() for each in graph(*map(torch.from_numpy, given))]
        assert reference[-1].min() >= 5  # there is something to find
        assert shared(in_onnx_runtime(path, *given), reference) >= least
        assert shared(in_openvino(path, *given), reference) >= least


def test_fast_rcnn_takes_proposals_of_any_number(tmp_path) -> None:
    corners = 100 * torch.rand(2, 40, 2)
    proposals = torch.cat([corners, corners + 5 + 60 * torch.rand(2, 40, 2)], dim=2)
    proposals[1, 30:] = 0  # padding
    assert_exports(tmp_path / "fast.onnx", tiny.detector(kind=FastRCNN), proposals.numpy())


def test_a_cascade(tmp_path) -> None:
    assert_exports(tmp_path / "cascade.onnx", tiny.detector(stages=3))


@pytest.mark.slow
@pytest.mark.parametrize("kind", [RPN, FasterRCNN])
@pytest.mark.parametrize("pyramid", tiny.PYRAMIDS)
def test_every_pyramid(tmp_path, pyramid, kind) -> None:
    # Without laterals, neighbouring cells score the same, and which of them a runtime takes is left to it.
    least = 0.85 if pyramid == "TopDownOnly" else 0.99
    assert_exports(tmp_path / "detector.onnx", tiny.detector(pyramid, kind), least=least)
