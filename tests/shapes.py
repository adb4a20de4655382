"""Small data sets of drawn shapes, on disk."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw


@dataclass(frozen=True)
class Coco:
    """A data set on disk: `content` is the JSON, to be changed and written again."""

    folder: Path
    content: dict

    @property
    def json(self) -> Path:
        return self.folder / "annotations.json"

    @property
    def images(self) -> Path:
        return self.folder / "images"

    def write(self) -> Coco:
        self.json.write_text(json.dumps(self.content))
        return self


def draw_shapes(folder: Path, count: int, *, side: int = 96, seed: int = 0) -> Coco:
    """Images with one red square and one blue disc on noise, as COCO."""
    random = np.random.default_rng(seed)
    images, annotations = [], []
    (folder / "images").mkdir(parents=True)
    for number in range(1, count + 1):
        picture = Image.fromarray(random.integers(90, 160, (side, side, 3), dtype=np.uint8))
        draw = ImageDraw.Draw(picture)
        for label, (left, right) in enumerate(((0, side // 2), (side // 2, side)), start=1):
            size = int(random.integers(24, 40))
            x, y = int(random.integers(left, right - size)), int(random.integers(0, side - size))
            corners = (x, y, x + size - 1, y + size - 1)
            draw.rectangle(corners, fill="#d02020") if label == 1 else draw.ellipse(corners, fill="#2040e0")
            box = [x, y, size, size]
            entry = {"image_id": number, "category_id": label, "bbox": box, "area": size * size, "iscrowd": 0}
            annotations.append({"id": len(annotations) + 1, **entry})
        picture.save(folder / "images" / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": side, "height": side})
    categories = [{"id": 1, "name": "square"}, {"id": 2, "name": "disc"}]
    return Coco(folder, {"images": images, "annotations": annotations, "categories": categories}).write()
