"""The photographs that come inside the package, and the scale chart made of one of them."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from .images import read_image

FOLDER = Path(__file__).parent.parent / "samples"

CHART_SIDES = (512, 362, 256, 181, 128, 90, 64, 45)
"""Pixels: half an octave between neighbours, so that every pyramid level gets its turn."""


def sample_images() -> list[Path]:
    """The shipped photographs, by name."""
    return sorted(FOLDER.glob("*.jpg"))


def chart_places(sides: tuple[int, ...] = CHART_SIDES) -> list[tuple[int, int, int]]:
    """Left, top and side of each copy on the chart: the larger ones in a first row, the others in a second."""
    gap, split = sides[-1] // 2, (len(sides) - 1) // 2
    places, top = [], gap
    for row in (sides[:split], sides[split:]):
        left = gap
        for side in row:
            places.append((left, top + row[0] - side, side))
            left += side + gap
        top += row[0] + gap
    return places


def scale_chart(photo: Image.Image, sides: tuple[int, ...] = CHART_SIDES) -> Image.Image:
    """The same photograph at many scales on one canvas.

    Args:
        photo: RGB; squeezed to a square if it is none.
        sides: pixels of each copy, falling.
    """
    places, gap = chart_places(sides), sides[-1] // 2
    width, height = (max(place[axis] + place[2] for place in places) + gap for axis in (0, 1))
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
