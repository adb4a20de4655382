"""From a photo to boxes."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from PIL import Image

from ..data.images import FORMATS, as_rgb_array
from ..data.paths import MAX_PIXELS
from ..data.pixels import PreprocessConfig
from ..device import PRECISIONS, choose_device
from ..errors import ConfigError
from ..files import write_bytes
from ..graph.exported import is_exported
from ..outputs import Arrays, singular
from ..pictures.annotate import COMMENT, annotate
from ..weights.find import find_weights
from .engines import Engine, Inspected
from .graph_cache import choose_engine, open_exported
from .passes import checked, merge, scaled

if TYPE_CHECKING:
    import torch

    from ..detectors import Detector

Picture = Any
"""What `fpnkit.data.images.as_rgb_array` takes: a path, bytes, a binary file, a PIL image, an array or a tensor."""


@dataclass(frozen=True)
class Result:
    """What was found in one image, best first, in the image's own pixels.

    Attributes:
        image: (H, W, 3) uint8 RGB, upright.
        boxes_xyxy: (K, 4) float32 pixels.
        scores: (K,) float32 in 0..1.
        labels: K class names.
        label_ids: (K,) int64 indices into the model's classes.
        more: name -> (K, ...) of whatever else the detector gives; `result.levels` reads `result.more["levels"]`, which
            is 3 when eq. 1 read the object from P3.
        path: the file, when there is one.
        features: level name -> (C, h, w) float32 map without padding cells, when they were asked for. Cell (i, j)
            of a level of stride s covers the s x s pixels at (j s, i s) of the image as the network saw it.
    """

    image: np.ndarray = field(repr=False)
    boxes_xyxy: np.ndarray
    scores: np.ndarray
    labels: tuple[str, ...]
    label_ids: np.ndarray
    more: Mapping[str, np.ndarray] = field(default_factory=dict)
    path: Path | None = None
    features: dict[str, np.ndarray] | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.labels)

    def __getattr__(self, name: str) -> np.ndarray:
        more = self.__dict__.get("more", {})
        if name not in more:
            raise AttributeError(f"this result has no {name!r}: beside boxes, scores and labels it has {list(more)}")
        return more[name]

    @property
    def size_wh(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.image.shape[1], self.image.shape[0]

    def detections(self) -> list[dict[str, Any]]:
        """Plain values for JSON: label, score, box_xyxy, and the rest by the singular of its name: level."""
        named: dict[str, Sequence[Any]] = {
            "label": self.labels,
            "score": [round(score, 4) for score in self.scores.tolist()],
            "box_xyxy": [[round(value, 2) for value in box] for box in self.boxes_xyxy.tolist()],
            **{singular(name): plain(values) for name, values in self.more.items()},
        }
        return [dict(zip(named, row, strict=True)) for row in zip(*named.values(), strict=True)]

    def annotated(self) -> Image.Image:
        """The image with its boxes, in the colour of their pyramid level, or of their class where there are none."""
        levels = self.more["levels"].tolist() if "levels" in self.more else None
        boxes, scores, label_ids = self.boxes_xyxy.tolist(), self.scores.tolist(), self.label_ids.tolist()
        return annotate(Image.fromarray(self.image), boxes, self.labels, scores, label_ids=label_ids, levels=levels)

    def save(self, path: str | Path) -> None:
        """Write the annotated image, replaced whole; the format follows the name."""
        path = Path(path)
        picture_format = Image.registered_extensions().get(path.suffix.lower())
        if picture_format not in FORMATS:
            raise ConfigError(f"{path}: pictures are saved as {', '.join(FORMATS)}, by the file's ending")
        encoded = io.BytesIO()
        self.annotated().save(encoded, format=picture_format, quality=92, comment=COMMENT)
        write_bytes(path, encoded.getvalue())


class Predictor:
    """A trained detector with its classes and preprocessing: call it on images.

    Can be copied and pickled, for processes that are spawned; a graph is opened again from its file.

    Args:
        detector: the network, or an engine that stands for it.
        classes: names, by label.
        preprocess: how its images are prepared.
        device: where a network runs.
        precision: of a network: `float32`, or `bf16` for speed.
        scales: factors of the configured image size; the network runs once for each, and what they find is merged
            by class-wise NMS (figure 1 (a) of the paper).
        max_pixels: larger images are refused before they are decoded.
    Raises:
        ConfigError: names for another number of classes, or scales out of range.
    """

    def __init__(
        self,
        detector: Detector | Engine,
        classes: Sequence[str],
        preprocess: PreprocessConfig,
        *,
        device: torch.device | str = "cpu",
        precision: str = "float32",
        scales: Sequence[float] = (1.0,),
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        if not hasattr(detector, "detect_and_propose") or hasattr(detector, "state_dict"):
            detector = _engine_of(cast("Detector", detector), classes, device, precision)
        self.engine: Engine = detector
        self.classes = tuple(classes)
        self.preprocess = preprocess
        self.device = str(device)
        self.scales = checked(scales)
        self.max_pixels = max_pixels

    @property
    def detector(self) -> Detector:
        """The PyTorch network as it runs here: a copy, its batch norms folded into convolutions.

        Raises:
            ConfigError: an exported graph runs in its place.
        """
        if self.engine.name != "torch" or not hasattr(self.engine, "detector"):
            raise ConfigError(
                f"{self.engine.name} runs an exported graph here: for the network itself load a checkpoint"
            )
        return self.engine.detector

    def __call__(self, picture: Picture, *, min_score: float = 0.5, features: bool = False) -> Result:
        """Find objects in one image.

        Args:
            picture: a path, bytes, a file, a PIL image, an array or a tensor; see `fpnkit.data.images.as_rgb_array`.
            min_score: weaker detections are left out; `postprocess.min_score` of the model is the least there is.
            features: keep the pyramid of the same pass as `Result.features`.
        Raises:
            DataError: the image cannot be read.
            ConfigError: `min_score` out of range, or features of several scales or of a graph.
        """
        return self.batch([picture], min_score=min_score, features=features)[0]

    def batch(self, pictures: Sequence[Picture], *, min_score: float = 0.5, features: bool = False) -> list[Result]:
        """Find objects in several images in one pass a scale; the results are in their order."""
        if not 0 <= min_score <= 1:
            raise ConfigError(f"min_score must lie in 0..1, got {min_score}")
        if features and len(self.scales) > 1:
            raise ConfigError("features are of one pass: load the model without scales, or with one")
        if not len(pictures):
            return []
        paths = [Path(each) if isinstance(each, str | Path) else None for each in pictures]
        images = [as_rgb_array(each, max_pixels=self.max_pixels) for each in pictures]
        if features:
            seen = self.engine.inspect(images, scaled(self.preprocess, self.scales[0]))
            found = [each.found for each in seen]
            maps: list[dict[str, np.ndarray] | None] = [each.features for each in seen]
        else:
            passes = [self.engine.detect(images, scaled(self.preprocess, scale)) for scale in self.scales]
            found, maps = [self._merged(each) for each in zip(*passes, strict=True)], [None] * len(images)
        rows = zip(images, found, paths, maps, strict=True)
        return [self._result(image, each, min_score, path, own) for image, each, path, own in rows]

    def inspect(self, picture: Picture, *, min_score: float = 0.5) -> tuple[Result, Inspected]:
        """Find objects in one image, with what each level of the pyramid answered in the same pass.

        Args:
            picture, min_score: as for a call.
        Raises:
            ConfigError: several scales, or an engine that does not see inside of its network.
        """
        if self.scales != (1.0,):
            raise ConfigError("levels are shown of one pass at scale 1: load the model without scales")
        if not 0 <= min_score <= 1:
            raise ConfigError(f"min_score must lie in 0..1, got {min_score}")
        image = as_rgb_array(picture, max_pixels=self.max_pixels)
        (inspected,) = self.engine.inspect([image], self.preprocess)
        path = Path(picture) if isinstance(picture, str | Path) else None
        return self._result(image, inspected.found, min_score, path, inspected.features), inspected

    def _merged(self, passes: Sequence[Arrays]) -> Arrays:
        return passes[0] if len(passes) == 1 else merge(passes, self.engine.postprocess)

    def _result(
        self,
        image: np.ndarray,
        found: Arrays,
        min_score: float,
        path: Path | None,
        features: dict[str, np.ndarray] | None,
    ) -> Result:
        kept = {name: values[found["scores"] >= min_score] for name, values in found.items()}
        boxes_xyxy, scores, label_ids = (kept.pop(name) for name in ("boxes_xyxy", "scores", "labels"))
        labels = tuple(self.classes[label] for label in label_ids.tolist())
        return Result(image, boxes_xyxy, scores, labels, label_ids, kept, path, features)


def plain(values: np.ndarray) -> list[Any]:
    """An output's values for JSON: floats of four decimals."""
    return (np.round(values.astype(float), 4) if values.dtype.kind == "f" else values).tolist()


def _engine_of(detector: Detector, classes: Sequence[str], device: torch.device | str, precision: str) -> Engine:
    import torch

    from .torch_engine import TorchEngine

    if len(classes) != detector.num_classes:
        raise ConfigError(f"the detector has {detector.num_classes} classes, {len(classes)} names were given")
    return TorchEngine(detector, torch.device(device), precision)


def load(
    model: str | Path = "default",
    *,
    device: str = "auto",
    precision: str | None = None,
    scales: Sequence[float] = (1.0,),
    engine: str | None = None,
    streams: int = 1,
    compiled: bool = False,
    min_score: float | None = None,
    nms_iou: float | None = None,
    detections: int | None = None,
    max_pixels: int = MAX_PIXELS,
    detector: Detector | None = None,
    on_message: Callable[[str], None] = lambda line: None,
) -> Predictor:
    """A detector ready to be called.

    Args:
        model: `default` for the weights inside the package, another shipped name, a run's folder, a .safetensors file,
            or a folder that an export wrote.
        device: `auto`, `cpu`, `cuda`.
        precision: `float32`, or `bf16` for speed; by default what the model was exported for, or float32.
        scales: factors of the model's image size, all merged: `(0.5, 1, 2)` reads 5 times the pixels.
        engine: `torch`, `onnxruntime` or `openvino`; `auto` for the fastest that is installed; by default torch for
            weights and the fastest for an exported model. Of weights a graph is made once and kept.
        streams: passes at a time, of engines that run a graph.
        compiled: torch.compile the network: a minute at its first image, faster on GPUs from then on.
        min_score, nms_iou, detections: other numbers of `Postprocess` than the model's own. An exported graph has
            them inside.
        max_pixels: larger images are refused before they are decoded.
        detector: a detector of your own for weights that were saved of one.
        on_message: gets a line when making a graph takes long.
    Raises:
        CheckpointError: no such model, or its file is damaged.
        ConfigError: a device or engine that is not there, numbers out of range, or what the engine cannot apply.
    """
    scales = checked(scales)  # before the weights are read
    if precision not in (None, *PRECISIONS):
        raise ConfigError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    numbers = {"min_score": min_score, "nms_iou": nms_iou, "detections": detections}
    given = {name: value for name, value in numbers.items() if value is not None}
    path, place = find_model(model), choose_device(device)
    if path.is_file():
        from .weights_engine import engine_of_weights

        chosen = choose_engine(engine or "torch", place.type)
        made, classes, preprocess = engine_of_weights(
            path,
            chosen,
            place,
            precision=precision or "float32",
            streams=streams,
            compiled=compiled,
            numbers=given,
            detector=detector,
            on_message=on_message,
        )
        return Predictor(made, classes, preprocess, device=place, scales=scales, max_pixels=max_pixels)
    if compiled:
        raise ConfigError("compiled=True is for weights in the engine torch; an exported graph is compiled already")
    if device != "auto" and place.type != "cpu":
        raise ConfigError(f"device={device} is for weights: {path} is an exported graph, which runs on the CPU")
    graph, exported = open_exported(path, engine=engine or "auto", precision=precision, streams=streams)
    for name, value in given.items():
        if value != (own := getattr(exported.postprocess, name)):
            raise ConfigError(f"{path} was exported with {name}={own}: for {name}={value} export the weights again")
    return Predictor(graph, exported.classes, exported.preprocess, scales=scales, max_pixels=max_pixels)


def find_model(model: str | Path) -> Path:
    """The weights file that a name, a run's folder or a path means, or the folder of an exported model.

    Raises:
        CheckpointError: there is none.
    """
    return Path(model) if is_exported(Path(model)) else find_weights(model)
