"""A folder that holds one exported graph and says everything about it."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..data.pixels import PreprocessConfig, SizeHW
from ..errors import CheckpointError
from ..files import sha256
from ..outputs import BASE_OUTPUTS, OutputSpec, Postprocess
from ..version import __version__

CARD = "fpnkit.json"
"""Name of the description; a folder with it is an exported model."""

FORMAT = 2
"""Of the description. Format 1 had the outputs of Faster R-CNN and its three numbers one by one."""

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
        size_hw: height and width of `images` when they are fixed.
        model: what the detector is called.
        classes: names, by label.
        preprocess: how images are prepared, inside or outside.
        postprocess: least score, NMS threshold and number of detections that are inside the graph.
        outputs: names, dtypes and shapes, in the graph's order; `count` comes last.
        fpnkit: the version that wrote it.
        files: name -> sha256 of all files of the graph.
    """

    format: str
    precision: str
    pixels: bool
    resizes: bool
    size_hw: SizeHW | None
    model: str
    classes: tuple[str, ...]
    preprocess: PreprocessConfig
    postprocess: Postprocess
    outputs: tuple[OutputSpec, ...]
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
        found = content.pop("format_version")
        if found not in (1, FORMAT):
            raise CheckpointError(f"{path}: written in format {found}, this fpnkit reads 1 and {FORMAT}")
        exported = _parsed(_of_format_1(content) if found == 1 else content)
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
    size_hw = content["size_hw"]
    outputs = [OutputSpec(each["name"], each["dtype"], tuple(each["shape"])) for each in content["outputs"]]
    exported = Exported(
        **{
            **content,
            "preprocess": PreprocessConfig.from_plain(content["preprocess"]),
            "postprocess": Postprocess(**content["postprocess"]),
            "outputs": tuple(outputs),
            "classes": tuple(content["classes"]),
            "size_hw": size_hw and (int(size_hw[0]), int(size_hw[1])),
        }
    )
    if exported.graph not in exported.files:
        raise ValueError(f"it does not list {exported.graph}")
    return exported


def _of_format_1(content: dict[str, Any]) -> dict[str, Any]:
    """A description of format 1 in today's terms."""
    numbers = {name: content.pop(name) for name in ("min_score", "nms_iou", "detections")}
    outputs = [dataclasses.asdict(spec) for spec in (*BASE_OUTPUTS, OutputSpec("levels", "int64"))]
    size_hw = content.pop("size")
    return {**content, "size_hw": size_hw, "postprocess": numbers, "outputs": outputs}
