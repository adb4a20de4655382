"""One graph in every runtime: any batch, height and width, and the very same detections."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import graphs
import numpy as np
import pytest
import tiny
import torch
from torch import Tensor, nn

from fpnkit.data.preprocess import Preprocess, PreprocessConfig
from fpnkit.detectors import RPN, Detector, FasterRCNN, FastRCNN, Postprocess
from fpnkit.graph.deploy import DeployGraph
from fpnkit.graph.exported import Exported
from fpnkit.graph.runtimes import OnnxRuntime, OpenVinoRuntime, Runtime
from fpnkit.graph.torch_runtime import TorchRuntime
from fpnkit.graph.write import write_graph, write_onnx
from fpnkit.outputs import BASE_OUTPUTS, OutputSpec
from fpnkit.structures import ImageBatch, PixelBatch, Targets

PREPROCESS = PreprocessConfig(short_side=96, long_side=128, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25))
SIZES = [(1, 128, 160), (3, 97, 131), (2, 160, 128), (1, 33, 40), (1, 2, 2), (5, 96, 96)]
RUNTIMES = {
    "onnxruntime": ("onnx", OnnxRuntime),
    "openvino of onnx": ("onnx", OpenVinoRuntime),
    "openvino": ("openvino", OpenVinoRuntime),
    "torch": ("torch", TorchRuntime),
}


detector, cells = cache(tiny.detector), cache(tiny.cells)


def description(model: Detector | None = None, **changes) -> Exported:
    model = model or detector()
    numbers = {"postprocess": model.postprocess, "outputs": model.outputs}
    graph = {"format": "onnx", "precision": "float32", "pixels": True, "resizes": False, "size_hw": None}
    names = {"model": "tiny", "classes": ("a", "b", "c"), "preprocess": PREPROCESS}
    return Exported(**{**numbers, **graph, **names, **changes})


@pytest.fixture(scope="module", autouse=True)
def shared_graphs():
    with graphs.each_made_once():
        yield


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Keyword arguments of `description` -> the folder with that graph, written once."""
    made: dict[frozenset, Path] = {}

    def write(**changes) -> Path:
        key = frozenset(changes.items())
        if key not in made:
            made[key] = tmp_path_factory.mktemp("exported")
            write_graph(made[key], changes.get("model") or detector(), description(**changes))
        return made[key]

    return write


@pytest.fixture(scope="module")
def runtime(written):
    """Name of a runtime and keyword arguments of `description` -> that graph in it, opened once."""

    @cache
    def opened(which: str, **changes) -> Runtime:
        kind, make = RUNTIMES[which]
        return make(written(format=kind, **changes) / description(format=kind, **changes).graph)

    return opened


def some_pixels(count: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Smooth random images and sizes that leave some padding, which holds junk."""
    dice = torch.Generator().manual_seed(height + width)
    images = nn.functional.interpolate(torch.rand(count, 3, 6, 6, generator=dice), (height, width), mode="bilinear")
    sizes = torch.tensor([height, width]) - (torch.rand(count, 2, generator=dice) * min(height, width) / 8).floor()
    return (255 * images).permute(0, 2, 3, 1).to(torch.uint8).contiguous().numpy(), sizes.numpy()


def wanted(
    images: np.ndarray, sizes: np.ndarray, *, pixels: bool = True, model: Detector | None = None
) -> list[np.ndarray]:
    graph = DeployGraph(model or detector(), PREPROCESS, pixels=pixels).eval()
    with torch.no_grad():
        return [each.numpy() for each in graph(torch.from_numpy(images), torch.from_numpy(sizes))]


def assert_same(found, reference) -> None:
    assert len(found) == len(reference)
    for ours, theirs in zip(found, reference, strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: "x".join(map(str, size)))
@pytest.mark.parametrize("which", RUNTIMES)
def test_every_runtime_finds_the_same_in_any_batch_height_and_width(runtime, which, size) -> None:
    given = some_pixels(*size)
    reference = wanted(*given)
    assert min(size) < 96 or reference[-1].min() >= 5  # there is something to find
    assert_same(runtime(which)(*given), reference)


def normalised(count: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Random input of a network, and sizes of which the second leaves some padding."""
    sizes = np.array([[height, width], [height - 6, width - 28], [height, width]], dtype=np.float32)
    return torch.randn(count, 3, height, width).numpy(), sizes[:count]


def test_normalised_input_of_any_size(runtime) -> None:
    for which in ("torch", "onnxruntime"):
        run = runtime(which, pixels=False, model=cells())
        for size in ((2, 96, 128), (1, 97, 131)):
            given = normalised(*size)
            assert_same(run(*given), wanted(*given, pixels=False, model=cells()))


@pytest.mark.parametrize("which", ["onnxruntime", "openvino of onnx"])
@pytest.mark.parametrize("pixels", [True, False])
def test_one_fixed_size(runtime, which, pixels) -> None:
    model, make = (cells(), some_pixels) if pixels else (detector(), normalised)
    run = runtime(which, size_hw=(96, 128), pixels=pixels, model=model)
    for count in (1, 3):
        given = make(count, 96, 128)
        assert_same(run(*given), wanted(*given, pixels=pixels, model=model))
    with pytest.raises(Exception, match=r"\d"):
        run(*make(1, 128, 96))


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


def test_a_cascade_with_a_head_and_numbers_of_its_own(tmp_path) -> None:
    """Its second head has a norm behind the pooled maps: there they are brought together, in the first they are not."""
    import onnx

    path, model = tmp_path / "cascade.onnx", tiny.detector(stages=2)
    head = model.roi.stages[1]
    head.fc1 = nn.Sequential(nn.Unflatten(1, (8, 7, 7)), nn.GroupNorm(2, 8), nn.Flatten(1), head.fc1)
    model.postprocess = Postprocess(min_score=0.2, nms_iou=0.7, detections=12)
    assert_exports(path, model)
    _, scores, *_, counts = in_onnx_runtime(path, *some_pixels(2, 128, 160))
    assert scores.shape == (2, 12)
    assert scores[0, : counts[0]].min() > 0.2
    nodes = onnx.load(path).graph.node
    readers = {name: node.op_type for node in nodes for name in node.input}
    pooled = [node.output[0] for node in nodes if node.op_type == "RoiAlign"]
    assert [readers[name] for name in pooled] == ["Flatten"] * 4 + ["Concat"] * 4


def test_a_detector_without_pyramid_and_its_own_outputs_by_name(tmp_path) -> None:
    import onnx

    model = tiny.cells()
    assert_exports(tmp_path / "cells.onnx", model)
    given = onnx.load(tmp_path / "cells.onnx").graph.output
    assert [each.name for each in given] == [*(spec.name for spec in model.outputs), "count"]
    found = in_onnx_runtime(tmp_path / "cells.onnx", *some_pixels(2, 128, 160))
    for spec, values in zip(model.outputs, found, strict=False):
        assert values.dtype == spec.dtype
        assert values.shape == (2, model.postprocess.detections, *spec.shape)

    model.postprocess = Postprocess(min_score=0.6, nms_iou=0.1, detections=9)
    write_onnx(tmp_path / "fewer.onnx", model, PREPROCESS)
    fewer = in_onnx_runtime(tmp_path / "fewer.onnx", *some_pixels(2, 128, 160))
    assert fewer[1].shape == (2, 9)
    for scores, count in zip(fewer[1], fewer[-1], strict=True):
        assert 0 < count < 9 or scores[:count].min() > 0.6
    with torch.no_grad():
        graph = DeployGraph(model, PREPROCESS).eval()
        assert_same(fewer, [each.numpy() for each in graph(*map(torch.from_numpy, some_pixels(2, 128, 160)))])


class Shows(Detector):
    """Gives back the pixels that it was given, a detection each, of images of 96 x 96."""

    outputs = (*BASE_OUTPUTS, OutputSpec("colours", "float32", (3,)))
    num_classes = 1

    def forward(self, images: Tensor, sizes_hw: Tensor) -> dict[str, Tensor]:
        colours = images.flatten(2).transpose(1, 2)[:, : 96 * 96]
        zeros = 0 * colours[..., 0]
        boxes_xyxy = zeros[..., None].expand(-1, -1, 4)
        found = {"boxes_xyxy": boxes_xyxy, "scores": zeros, "labels": zeros.long()}
        return {**found, "colours": colours, "valid": zeros == 0}

    def losses(self, batch: ImageBatch, targets: Targets) -> dict[str, Tensor]:
        return {}


def test_pixels_are_normalised_inside_the_graph_as_outside(tmp_path) -> None:
    write_onnx(tmp_path / "shows.onnx", Shows().eval(), PREPROCESS)
    images, _ = some_pixels(2, 90, 80)
    sizes = np.array([[90, 80], [37, 64]], dtype=np.float32)  # junk beyond
    canvas = np.zeros((2, 96, 96, 3), dtype=np.uint8)
    canvas[:, :90, :80] = images
    batch = PixelBatch(torch.from_numpy(canvas), torch.from_numpy(sizes), torch.from_numpy(sizes))
    expected = Preprocess(PREPROCESS).normalise(batch).images.permute(0, 2, 3, 1).flatten(1, 2).numpy()
    assert np.abs(expected).max() > 1
    assert not expected.reshape(2, 96, 96, 3)[1, 37:].any()
    for run in (in_onnx_runtime, in_openvino):
        *_, colours, _ = run(tmp_path / "shows.onnx", images, sizes)
        np.testing.assert_allclose(colours, expected, atol=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [RPN, FasterRCNN])
@pytest.mark.parametrize("pyramid", tiny.PYRAMIDS)
def test_every_pyramid(tmp_path, pyramid, kind) -> None:
    # Without laterals, neighbouring cells score the same, and which of them a runtime takes is left to it.
    least = 0.85 if pyramid == "TopDownOnly" else 0.99
    assert_exports(tmp_path / "detector.onnx", tiny.detector(pyramid, kind), least=least)
