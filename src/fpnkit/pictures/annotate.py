"""Pictures of detections: boxes in the colour of the pyramid level that found them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

LEVEL_COLOURS = {2: "#ffd166", 3: "#06d6a0", 4: "#4cc9f0", 5: "#f72585", 6: "#b388eb"}
CLASS_COLOURS = ("#ffd166", "#06d6a0", "#4cc9f0", "#f72585", "#b388eb", "#ff8c42", "#9ef01a", "#e0e1dd")
"""Of labels, in turn."""
INK = "#101418"

COMMENT = b"boxes drawn by fpnkit"
"""Stands in the JPEGs that are saved, so that they are not taken for photographs."""


def annotate(
    image: Image.Image,
    boxes_xyxy: Sequence[Sequence[float]],
    labels: Sequence[str],
    scores: Sequence[float],
    *,
    label_ids: Sequence[int],
    levels: Sequence[int] | None,
) -> Image.Image:
    """A copy of an image with its boxes in the colours of their levels, and a legend of these.

    Args:
        image: RGB.
        boxes_xyxy: K boxes in pixels.
        labels, scores: K each.
        label_ids: K, the colours of a detector that gives no levels.
        levels: K, the k of P_k, or None.
    """
    canvas = image.convert("RGB")
    draw = ImageDraw.Draw(canvas)
    unit = max(1.0, min(canvas.size) / 320)
    font = ImageFont.load_default(size=max(10, round(9 * unit)))
    width = max(1, round(1.6 * unit))
    colours = list(map(class_colour, label_ids)) if levels is None else list(map(level_colour, levels))
    weakest_first = list(zip(boxes_xyxy, labels, scores, colours, strict=True))[::-1]
    for box, _, _, colour in weakest_first:
        draw.rectangle(tuple(box), outline=colour, width=width)
    for box, label, score, colour in weakest_first:
        _chip(draw, (box[0], box[1]), f"{label} {score:.0%}", colour, font, box[2] - box[0])
    _legend(draw, canvas.size, sorted(set(levels or ())), font)
    return canvas


def drawn_here(path: Path) -> bool:
    """Whether a file is a JPEG of annotated boxes, not somebody's photograph."""
    try:
        with Image.open(path, formats=("JPEG",)) as image:
            return image.info.get("comment") == COMMENT
    except Exception:  # decoders raise anything on damaged files
        return False


def level_colour(level: int) -> str:
    """The colour of P_k, as #rrggbb."""
    return LEVEL_COLOURS.get(level, "#ffffff")


def class_colour(label: int) -> str:
    """The colour of a label, as #rrggbb."""
    return CLASS_COLOURS[label % len(CLASS_COLOURS)]


def _chip(
    draw: ImageDraw.ImageDraw, corner: tuple[float, float], text: str, colour: str, font: Any, room: float
) -> None:
    """A filled label above a box; shortened to the score when the box is narrow, left out when it is tiny."""
    if draw.textlength(text, font) > 1.6 * room:
        text = text.rsplit(" ", 1)[-1]
    length = draw.textlength(text, font)
    if length > 2.5 * room:
        return
    pad, height = 2, font.size + 4
    x = min(max(0.0, corner[0]), max(0.0, draw.im.size[0] - length - 2 * pad))
    y = corner[1] - height if corner[1] >= height else corner[1]
    draw.rectangle((x, y, x + length + 2 * pad, y + height), fill=colour)
    draw.text((x + pad, y + 1), text, fill=INK, font=font)


def _legend(draw: ImageDraw.ImageDraw, size: tuple[int, int], levels: Sequence[int], font: Any) -> None:
    if not levels:
        return
    pad, side = 4, font.size
    entries = [(level, f"P{level}") for level in levels]
    width = sum(side + 3 * pad + draw.textlength(text, font) for _, text in entries) + pad
    x, y = pad, size[1] - side - 3 * pad
    draw.rectangle((x, y - pad, x + width, y + side + pad), fill=INK)
    x += pad
    for level, text in entries:
        draw.rectangle((x, y, x + side, y + side), fill=level_colour(level))
        draw.text((x + side + pad, y - 1), text, fill="white", font=font)
        x += side + 3 * pad + draw.textlength(text, font)
