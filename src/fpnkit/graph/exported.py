"""A folder that holds one exported graph and says everything about it."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..data.preprocess import PreprocessConfig
from ..errors import CheckpointError
from ..files import sha256
from ..version import __version__

CARD = "fpnkit.json"
"""Name of the description; a folder with it is an exported model."""

FORMAT = 1

FORMATS = {"onnx": "model.onnx", "openvino": "model.xml", "torch": "model.pt2"}
"""Format -> name of the graph's file."""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What an exported graph is and expects.

    Attributes:
        format: a key of `FORMATS`.
        precision: `float32`, `bf16` or `int8`.
        pixels: takes (N, H, W, 3) uint8 RGB; otherwise (N, 3, H, W) float32, normalised.
        resizes: brings images to the network's size by itself, and takes no `sizes`.
        size: height and width of `images` when they are fixed.
        model: name in the zoo.
        classes: names, by label.
        preprocess: how images are prepared, inside or outside.
        min_score: weaker detections are never given.
        nms_iou: of class-wise suppression.
        detections: D, the width of the outputs.
        fpnkit: the version that wrote it.
        files: name -> sha256 of all files of the graph.
    """

    format: str
    precision: str
    pixels: bool
    resizes: bool
    size: tuple[int, int] | None
    model: str
    classes: tuple[str, ...]
    preprocess: PreprocessConfig
    min_score: float
    nms_iou: float
    detections: int
    fpnkit: str = __version__
    files: dict[str, str] = field(default_factory=dict)

    @property
    def graph(self) -> str:
        """Name of the graph's file."""
        return FORMATS[self.format]


def is_exported(folder: Path) -> bool:
    """Whether a folder holds an exported model."""
    return (folder / CARD).is_file()


def write_card(folder: Path, exported: Exported) -> None:
    """Write the description, with the hashes of all other files that are there."""
    files = {path.name: sha256(path) for path in sorted(folder.iterdir()) if path.name != CARD}
    content = {"format_version": FORMAT, **dataclasses.asdict(dataclasses.replace(exported, files=files))}
    (folder / CARD).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_card(folder: Path) -> Exported:
    """The description of an exported model whose files are all as they were written.

    Raises:
        CheckpointError: damaged, changed, or of another version of the format.
    """
    path = folder / CARD
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if (found := content.pop("format_version")) != FORMAT:
            raise CheckpointError(f"{path}: written in format {found}, this fpnkit reads {FORMAT}")
        exported = _parsed(content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: its description of the model is damaged: {error}") from None
    for name, expected in exported.files.items():
        file = folder / name
        if not file.is_file():
            raise CheckpointError(f"{file}: missing: export the model again")
        if sha256(file) != expected:
            raise CheckpointError(f"{file}: changed since it was exported: export the model again")
    return exported


def _parsed(content: dict[str, Any]) -> Exported:
    size = content["size"]
    exported = Exported(
        **{
            **content,
            "preprocess": PreprocessConfig.from_plain(content["preprocess"]),
            "classes": tuple(content["classes"]),
            "size": size and (int(size[0]), int(size[1])),
        }
    )
    if exported.graph not in exported.files:
        raise ValueError(f"it does not list {exported.graph}")
    return exported
