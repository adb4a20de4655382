"""Images that are in two splits: the same photograph, saved again, resized or mirrored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from ..data.images import opened_image, to_rgb
from ..data.paths import MAX_PIXELS

SIDE = 24
"""Pixels of the grey thumbnails that are compared."""

MIN_SIMILARITY = 0.985
"""Correlation of two thumbnails from which on they are taken for the same photograph."""

_ROWS = 1024


def thumbnail(path: Path, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """(SIDE * SIDE,) grey values of mean 0 and length 1; zeros of an image that is one colour.

    Raises:
        DataError: see `read_image`.
    """
    with opened_image(path, max_pixels=max_pixels) as image:
        image.draft("L", (4 * SIDE, 4 * SIDE))
        small = to_rgb(image).convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
    values = np.asarray(small, dtype=np.float32).ravel()
    values = values - values.mean()
    length = float(np.linalg.norm(values))
    return values / length if length > SIDE else np.zeros_like(values)


def find_duplicates(
    first: Sequence[Path],
    second: Sequence[Path],
    *,
    max_pixels: int = MAX_PIXELS,
    on_image: Callable[[], None] = lambda: None,
) -> list[tuple[int, int, float]]:
    """Pairs of the same photograph.

    Args:
        first, second: readable images.
        max_pixels: see `read_image`.
        on_image: called after each image.
    Returns:
        Index into the first, index into the second, correlation; the most similar first.
    """

    def look(path: Path) -> np.ndarray:
        found = thumbnail(path, max_pixels=max_pixels)
        on_image()
        return found

    with ThreadPoolExecutor() as pool:
        one, two = (np.stack(list(pool.map(look, paths)) or [np.zeros(SIDE * SIDE)]) for paths in (first, second))
    mirrored = two.reshape(-1, SIDE, SIDE)[:, :, ::-1].reshape(len(two), -1)
    pairs = []
    for start in range(0, len(one), _ROWS):
        rows = one[start : start + _ROWS]
        similarity = np.maximum(rows @ two.T, rows @ mirrored.T)
        for row, column in np.argwhere(similarity >= MIN_SIMILARITY):
            pairs.append((start + int(row), int(column), float(similarity[row, column])))
    return sorted(pairs, key=lambda pair: -pair[2])
