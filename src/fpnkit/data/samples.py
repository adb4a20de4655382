"""The photographs that come inside the package, and the scale chart made of one of them."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from .images import read_image

FOLDER = Path(__file__).parent.parent / "samples"

CHART_SIDES = (512, 362, 128, 90, 64, 45)
"""Pixels of the copies: one fills the left side, one stands beside it, the others in a row below that one."""

GAP = 22


def sample_images() -> list[Path]:
    """The shipped photographs, by name."""
    return sorted(FOLDER.glob("*.jpg"))


def chart_places() -> list[tuple[int, int, int]]:
    """Left, top and side of each copy on the chart, in pixels."""
    first, second, *row = CHART_SIDES
    beside = GAP + first + GAP
    between = (second - sum(row)) // (len(row) - 1)
    places, left = [(GAP, GAP, first), (beside, GAP, second)], beside
    for side in row:
        places.append((left, GAP + first - side, side))
        left += side + between
    return places


def scale_chart(photo: Image.Image) -> Image.Image:
    """The same photograph at six scales on one canvas; it is squeezed to a square if it is none."""
    places = chart_places()
    width, height = (max(place[axis] + place[2] for place in places) + GAP for axis in (0, 1))
    canvas = Image.new("RGB", (width, height), "#8a8f94")
    for left, top, side in places:
        canvas.paste(photo.resize((side, side), Image.Resampling.LANCZOS), (left, top))
    return canvas


def write_samples(folder: Path) -> list[Path]:
    """Copy the photographs and the scale chart into a folder.

    Returns:
        The files, the chart first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    chart = folder / "scales.jpg"
    scale_chart(read_image(FOLDER / "astronaut.jpg")).save(chart, quality=95)
    copies = [folder / source.name for source in sample_images()]
    for source, copy in zip(sample_images(), copies, strict=True):
        copy.write_bytes(source.read_bytes())
    return [chart, *copies]
