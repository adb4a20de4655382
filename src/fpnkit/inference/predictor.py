"""From a photo to boxes."""

from __future__ import annotations

import difflib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..data.images import FORMATS, read_image
from ..data.preprocess import Preprocess, Size
from ..data.tensors import to_tensor
from ..detectors import FasterRCNN
from ..device import choose_device
from ..errors import CheckpointError, ConfigError
from ..files import write_bytes
from ..graph.exported import is_exported
from ..pictures.annotate import COMMENT, annotate
from ..structures import Detections, Features, LevelSpec
from ..weights.checkpoint import load_weights
from ..zoo.shipped import SHA256, shipped_weights
from .engines import Engine, TorchEngine
from .graph_cache import choose_engine, kept_graph, open_exported
from .passes import checked, merge, scaled
from .record import recorded

Picture = str | Path | Image.Image | np.ndarray | Tensor

Maps = dict[str, Tensor]
"""Level name -> (C, h, w) float32: the pyramid of one image."""


@dataclass(frozen=True)
class Result:
    """What was found in one image, best first, in the image's own pixels.

    Attributes:
        image: (3, H, W) uint8, upright.
        boxes_xyxy: (K, 4) float32 pixels.
        scores: (K,) float32 in 0..1.
        labels: K class names.
        label_ids: (K,) int64 indices into the model's classes.
        levels: (K,) int64: 3 when eq. 1 read the object from P3.
        path: the file, when there is one.
        features: level name -> (C, h, w) float32 map without padding cells, when they were asked for. Cell (i, j)
            of a level of stride s covers the s x s pixels at (j s, i s) of the image as the network saw it.
    """

    image: Tensor = field(repr=False)
    boxes_xyxy: Tensor
    scores: Tensor
    labels: tuple[str, ...]
    label_ids: Tensor
    levels: Tensor
    path: Path | None = None
    features: Maps | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.image.shape[2], self.image.shape[1]

    def detections(self) -> list[dict[str, Any]]:
        """Plain values for JSON: label, score, box_xyxy, level."""
        rows = zip(self.labels, self.scores.tolist(), self.boxes_xyxy.tolist(), self.levels.tolist(), strict=True)
        return [
            {"label": label, "score": round(score, 4), "box_xyxy": [round(value, 2) for value in box], "level": level}
            for label, score, box, level in rows
        ]

    def annotated(self) -> Image.Image:
        """The image with its boxes, in the colour of their pyramid level."""
        picture = Image.fromarray(self.image.permute(1, 2, 0).numpy())
        return annotate(picture, self.boxes_xyxy.tolist(), self.labels, self.scores.tolist(), self.levels.tolist())

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

    Args:
        detector: the network, or an engine that stands for it.
        classes: names, by label.
        preprocess: how its images are prepared.
        device: where a network runs.
        precision: of a network: `float32`, or `bf16` for speed.
        scales: factors of the configured image size; the network runs once for each, and what they find is merged
            by class-wise NMS (figure 1 (a) of the paper).
    Raises:
        ConfigError: names for another number of classes, or scales out of range.
    """

    def __init__(
        self,
        detector: FasterRCNN | Engine,
        classes: Sequence[str],
        preprocess: Preprocess,
        *,
        device: torch.device | str = "cpu",
        precision: str = "float32",
        scales: Sequence[float] = (1.0,),
    ) -> None:
        if isinstance(detector, FasterRCNN):
            if len(classes) != detector.num_classes:
                raise ConfigError(f"the detector has {detector.num_classes} classes, {len(classes)} names were given")
            detector = TorchEngine(detector, torch.device(device), precision)
        self.engine = detector
        self.classes = tuple(classes)
        self.preprocess = preprocess
        self.device = torch.device(device)
        self.scales = checked(scales)

    @property
    def detector(self) -> FasterRCNN:
        """The PyTorch network as it runs here: a copy, its batch norms folded into convolutions.

        Raises:
            ConfigError: an exported graph runs in its place.
        """
        if not isinstance(self.engine, TorchEngine):
            raise ConfigError(
                f"{self.engine.name} runs an exported graph here: for the network itself load a checkpoint"
            )
        return self.engine.detector

    def __call__(self, picture: Picture, *, min_score: float = 0.5, features: bool = False) -> Result:
        """Find objects in one image.

        Args:
            picture: a path, a PIL image, an array (H, W, 3) or (H, W) uint8, or a tensor (3, H, W) uint8.
            min_score: weaker detections are left out; the model itself drops those below 0.05.
            features: keep the pyramid of the same pass as `Result.features`.
        Raises:
            DataError: the image cannot be read.
            ConfigError: `min_score` out of range, or features of several scales.
        """
        return self.batch([picture], min_score=min_score, features=features)[0]

    def batch(self, pictures: Sequence[Picture], *, min_score: float = 0.5, features: bool = False) -> list[Result]:
        """Find objects in several images in one pass a scale; the results are in their order."""
        if not 0 <= min_score <= 1:
            raise ConfigError(f"min_score must lie in 0..1, got {min_score}")
        if features and len(self.scales) > 1:
            raise ConfigError("features are of one pass: load the model without scales, or with one")
        paths = [Path(each) if isinstance(each, str | Path) else None for each in pictures]
        images = [
            to_tensor(read_image(path) if path else each)  # type: ignore[arg-type]
            for path, each in zip(paths, pictures, strict=True)
        ]
        passes = [self._run(images, scale, features=features) for scale in self.scales]
        return [
            self._result(image, path, each, min_score)
            for image, path, each in zip(images, paths, zip(*passes, strict=True), strict=True)
        ]

    def _run(self, images: Sequence[Tensor], scale: float, *, features: bool) -> list[tuple[Detections, Maps | None]]:
        """One pass: for each image its detections in its own pixels, and its pyramid."""
        config = scaled(self.preprocess.config, scale)
        if not features:
            return [(found, None) for found in self.engine.detect(images, config)]
        with recorded(self.detector.rpn) as calls:
            found = self.engine.detect(images, config)
        ((pyramid,), _), levels = calls[-1], self.detector.pyramid.levels
        sizes = [Preprocess(config).resized(*image.shape[1:]) for image in images]
        return [(each, maps_of(pyramid, index, levels, sizes[index])) for index, each in enumerate(found)]

    def _result(
        self, image: Tensor, path: Path | None, passes: Sequence[tuple[Detections, Maps | None]], min_score: float
    ) -> Result:
        detections, maps = passes[0]
        if len(passes) > 1:
            detections = merge([found for found, _ in passes], self.engine.nms_iou, self.engine.most)
        kept = detections[detections.scores >= min_score]
        labels = tuple(self.classes[label] for label in kept.labels.tolist())
        return Result(image, kept.boxes_xyxy, kept.scores, labels, kept.labels, kept.levels, path, maps)


def maps_of(features: Features, index: int, levels: Sequence[LevelSpec], size: Size) -> Maps:
    """The pyramid of one image of a batch, without padding.

    Args:
        features: of the batch.
        index: the image's place in it.
        levels: their specs.
        size: height and width of the image inside the padding.
    Returns:
        Level name -> (C, h, w) float32: the cells that hold a pixel of the image, copied.
    """
    height, width = size
    cropped = {
        level.name: features[level.name][index, :, : -(-height // level.stride), : -(-width // level.stride)]
        for level in levels
    }
    # Cloned, because a tensor made in inference mode takes no part in training.
    return {name: feature.to("cpu", torch.float32).clone() for name, feature in cropped.items()}


def load(
    model: str | Path = "default",
    *,
    device: str = "auto",
    precision: str | None = None,
    scales: Sequence[float] = (1.0,),
    engine: str | None = None,
    streams: int = 1,
    compiled: bool = False,
    tell: Callable[[str], None] = lambda line: None,
) -> Predictor:
    """A detector ready to be called.

    Args:
        model: `default` for the weights inside the package, a run's folder, a .safetensors file, or a folder that
            `fpnkit export` wrote.
        device: `auto`, `cpu`, `cuda`.
        precision: `float32`, or `bf16` for speed; by default what the model was exported for, or float32.
        scales: factors of the model's image size, all merged: `(0.5, 1, 2)` reads 5 times the pixels.
        engine: `torch`, `onnxruntime` or `openvino`; `auto` for the fastest that is installed; by default torch for
            weights and the fastest for an exported model. Of weights a graph is made once and kept.
        streams: passes that an exported graph runs at a time.
        compiled: torch.compile the network: a minute at its first image, faster on GPUs from then on.
        tell: gets a line when making a graph takes long.
    Raises:
        CheckpointError: no such model, or its file is damaged.
        ConfigError: a device or engine that is not there, or scales out of range.
    """
    scales = checked(scales)  # before the weights are read
    path, place = find_model(model), choose_device(device)
    chosen = choose_engine(engine or "torch", place.type) if path.is_file() else engine or "auto"
    if path.is_file() and chosen == "torch":
        detector, card = load_weights(path)
        network = TorchEngine(detector, place, precision or "float32", compiled=compiled)
        return Predictor(network, card.classes, Preprocess(card.preprocess), device=place, scales=scales)
    if compiled:
        raise ConfigError("torch.compile is for weights in the engine torch; an exported graph is compiled already")
    if path.is_file():
        path, precision = kept_graph(path, tell), precision or "float32"
    graph, exported = open_exported(path, engine=chosen, precision=precision, streams=streams)
    return Predictor(graph, exported.classes, Preprocess(exported.preprocess), scales=scales)


def find_model(model: str | Path) -> Path:
    """The weights file that a name, a run's folder or a path means, or the folder of an exported model.

    Raises:
        CheckpointError: there is none.
    """
    path = Path(model)
    if str(model) in SHA256:
        return shipped_weights(str(model))
    if is_exported(path):
        return path
    if path.is_dir():
        for name in ("best", "last"):
            weights = path / "weights" / f"{name}.safetensors"
            if weights.is_file():
                return weights
        raise CheckpointError(
            f"{path}: the folder holds no weights/best.safetensors: is it a training run or an export?"
        )
    if not path.exists():
        near = difflib.get_close_matches(str(model), SHA256, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"shipped models: {', '.join(SHA256)}"
        raise CheckpointError(f"{model}: no such model, run folder or weights file; {hint}")
    return path
