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


def scale_chart(photo: Image.Image, sides: tuple[int, ...] = CHART_SIDES) -> Image.Image:
    """The same square photograph at many scales on one canvas, in two rows.

    Args:
        photo: RGB; squeezed to a square if it is none.
        sides: pixels of each copy, the larger half in the first row.
    """
    gap, split = sides[-1] // 2, (len(sides) - 1) // 2
    rows = (sides[:split], sides[split:])
    width = max(sum(row) + gap * (len(row) + 1) for row in rows)
    height = sum(max(row) for row in rows) + 3 * gap
    canvas = Image.new("RGB", (width, height), "#8a8f94")
    top = gap
    for row in rows:
        left = gap
        for side in row:
            canvas.paste(photo.resize((side, side), Image.Resampling.LANCZOS), (left, top + max(row) - side))
            left += side + gap
        top += max(row) + gap
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
