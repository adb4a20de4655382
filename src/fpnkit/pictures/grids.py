"""Pictures that are looked at while a training runs: what goes in, and what comes out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageDraw, ImageFont

from ..data.annotated import AnnotatedImages
from ..data.images import read_image
from .annotate import INK, class_colour
from .plots import write_picture

if TYPE_CHECKING:
    from ..structures import PixelBatch, Targets

TILE, COLUMNS, MOST = 360, 4, 8
LEAST_SCORE = 0.5

Drawn = tuple[Sequence[float], int, str]
"""Box, label and text."""


def draw_batch(path: Path, batch: PixelBatch, targets: Targets, classes: Sequence[str]) -> None:
    """A batch as the network gets it, with the boxes that it is to find; crowds are grey.

    Args:
        path: a JPEG.
        batch, targets: of the loader.
        classes: names, by label.
    """
    tiles = []
    for index in range(min(len(batch), MOST)):
        height, width = (int(side) for side in batch.sizes_hw[index])
        image = Image.fromarray(batch.pixels[index, :height, :width].numpy())
        real = targets.valid[index]
        rows = zip(targets.boxes_xyxy[index][real].tolist(), targets.labels[index][real].tolist(), strict=True)
        tiles.append(tile(image, [(box, label, classes[label]) for box, label in rows]))
    write_picture(path, grid(tiles))


def draw_predictions(path: Path, detections: Iterable[dict[str, Any]], dataset: AnnotatedImages) -> None:
    """The first images of a data set: predictions above score 0.5 over the annotations, which are thin and white.

    Args:
        path: a JPEG.
        detections: COCO results of the data set.
        dataset: the ground truth.
    """
    labels = {number: label for label, number in enumerate(dataset.category_ids)}
    found: dict[int, list[Drawn]] = defaultdict(list)
    for each in detections:
        if each["score"] >= LEAST_SCORE:
            (x, y, width, height), label = each["bbox"], labels[each["category_id"]]
            text = f"{dataset.classes[label]} {each['score']:.0%}"
            found[each["image_id"]].append(((x, y, x + width, y + height), label, text))
    tiles = [
        tile(read_image(record.path), found[record.image_id], record.boxes_xyxy) for record in dataset.records[:MOST]
    ]
    write_picture(path, grid(tiles))


def tile(image: Image.Image, boxes: Sequence[Drawn], truth: Sequence[Sequence[float]] = ()) -> Image.Image:
    """A small copy of an image with boxes in the colours of their labels, and thin white ones below."""
    scale = TILE / max(image.size)
    made = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
    draw, font = ImageDraw.Draw(made), ImageFont.load_default(size=11)
    for box in truth:
        draw.rectangle([side * scale for side in box], outline="white", width=1)
    for box, label, text in boxes:
        corners, colour = [side * scale for side in box], class_colour(label)
        draw.rectangle(corners, outline=colour, width=2)
        if corners[2] - corners[0] > 40:
            corner = (corners[0] + 3, corners[1] + 3)
            draw.rectangle(draw.textbbox(corner, text, font=font), fill=colour, outline=colour, width=2)
            draw.text(corner, text, fill=INK, font=font)
    return made


def grid(tiles: Sequence[Image.Image]) -> Image.Image:
    """Tiles in rows."""
    columns, rows = min(COLUMNS, len(tiles)), -(-len(tiles) // COLUMNS)
    canvas = Image.new("RGB", (columns * (TILE + 8), rows * (TILE + 8)), INK)
    for place, each in enumerate(tiles):
        row, column = divmod(place, COLUMNS)
        left, top = ((TILE + 8 - side) // 2 for side in each.size)
        canvas.paste(each, (column * (TILE + 8) + left, row * (TILE + 8) + top))
    return canvas
