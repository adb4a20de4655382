"""The report as one HTML page that needs no other file."""

from __future__ import annotations

import base64
import io
import random
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from PIL import Image

from ..data.annotated import AnnotatedImages
from ..data.images import read_image
from ..data.paths import MAX_PIXELS
from ..pictures.grids import grid, tile
from .report import AnchorReport, DataReport

SAMPLES, THUMBNAIL = 16, 320
"""Images of the mosaic; pixels of an image that is in two splits."""

SHOWN = 200
"""Most rows of a table; the JSON has all."""

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1d2733; max-width: 1320px; margin: 2rem auto; padding: 0 1rem }
h1 { margin-bottom: 0 } h2 { margin-top: 2.2rem } .quiet { color: #66717e }
.facts { display: flex; flex-wrap: wrap; gap: 1rem; margin: 1rem 0 }
.fact { background: #f2f5f8; border-radius: 8px; padding: .7rem 1.1rem } .fact b { display: block; font-size: 1.6rem }
.bad b { color: #c1121f } table { border-collapse: collapse; width: 100% }
td, th { text-align: left; padding: .25rem .7rem .25rem 0; border-bottom: 1px solid #e3e8ee; vertical-align: top }
.bar { background: #2374ab; height: .8rem; border-radius: 3px; min-width: 1px } .wide { width: 55% }
img { max-width: 100%; border-radius: 8px } code { overflow-wrap: anywhere }
.pair img { width: 300px; margin-right: 8px }
"""


def as_html(
    report: DataReport, splits: Mapping[str, AnnotatedImages], *, seed: int = 0, max_pixels: int = MAX_PIXELS
) -> str:
    """The page.

    Args:
        report: what was found.
        splits: the data, for pictures.
        seed: of the choice of samples.
        max_pixels: see `read_image`.
    """
    facts = [
        ("images", f"{report.images:,}", False),
        ("boxes", f"{report.boxes:,}", False),
        ("bad records", f"{len(report.problems):,}", bool(report.problems)),
        ("images in two splits", f"{len(report.duplicates):,}", bool(report.duplicates)),
    ]
    if report.anchors:
        facts.append(("boxes that an anchor matches", f"{report.anchors.share:.1%}", report.anchors.share < 0.9))
    parts = [
        f"<h1>{escape(report.data)}</h1><p class=quiet>fpnkit doctor</p><div class=facts>",
        *(f"<div class='fact{' bad' * bad}'><b>{value}</b>{name}</div>" for name, value, bad in facts),
        "</div>",
        _problems(report),
        "<h2>Samples</h2>",
        _picture(mosaic(splits, seed=seed, max_pixels=max_pixels), "samples with their boxes"),
        _classes(report),
        "<h2>Sizes</h2><p class=quiet>COCO's ranges: to 32 x 32 pixels, to 96 x 96, above.</p>",
        _bars({f"{name}, {size}": n for name, each in report.splits.items() for size, n in each.sizes.items()}),
        _anchors(report.anchors) if report.anchors else "",
        _duplicates(report, max_pixels),
    ]
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(report.data)}</title>"
        f"<style>{STYLE}</style><body>{''.join(parts)}</body></html>\n"
    )


def mosaic(splits: Mapping[str, AnnotatedImages], *, seed: int, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Random images with their boxes, a colour a class."""
    records = [(record, each.classes) for each in splits.values() for record in each.records]
    chosen = random.Random(seed).sample(records, min(SAMPLES, len(records)))
    tiles = []
    for record, classes in chosen:
        boxes = [(each.box_xyxy, each.label, classes[each.label]) for each in record.objects]
        tiles.append(tile(read_image(record.path, max_pixels=max_pixels), boxes))
    return grid(tiles)


def _picture(image: Image.Image, alt: str) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f"<img alt='{escape(alt, quote=True)}' src='data:image/jpeg;base64,{data}'>"


def _bars(counts: Mapping[str, int]) -> str:
    largest = max(counts.values(), default=0) or 1
    rows = (
        f"<tr><td>{escape(name)}<td>{count:,}"
        f"<td class=wide><div class=bar style='width:{100 * count / largest:.1f}%'></div>"
        for name, count in counts.items()
    )
    return f"<table>{''.join(rows)}</table>"


def _classes(report: DataReport) -> str:
    splits = "; ".join(
        f"{escape(name)}: {each.images:,} images ({each.background:,} without a box), {each.boxes:,} boxes"
        for name, each in report.splits.items()
    )
    return f"<h2>Classes</h2><p class=quiet>{splits}</p>{_bars(report.classes)}"


def _table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    more = f"<p class=quiet>and {len(rows) - SHOWN:,} more</p>" if len(rows) > SHOWN else ""
    head = "".join(f"<th>{escape(name)}" for name in header)
    body = "".join("<tr>" + "".join(f"<td><code>{escape(cell)}</code>" for cell in row) for row in rows[:SHOWN])
    return f"<h2>{escape(title)}</h2><table><tr>{head}{body}</table>{more}"


def _problems(report: DataReport) -> str:
    rows = [(problem.file, problem.record, problem.reason) for problem in report.problems]
    return _table(f"{len(rows):,} bad records", ("file", "record", "what is wrong"), rows)


def _anchors(found: AnchorReport) -> str:
    rows = [
        (each.file, each.label, ", ".join(f"{side:g}" for side in each.bbox), f"{each.iou:.2f}")
        for each in found.unmatched
    ]
    return (
        f"<h2>Levels and anchors of {escape(found.model)}</h2><p class=quiet>Images of {found.size[0]} to "
        f"{found.size[1]} pixels; each box counts on the level of its best anchor.</p>"
        + _bars(found.levels)
        + "".join(f"<p><b>{escape(line)}</b></p>" for line in found.advice)
        + _table(
            f"{len(rows):,} boxes that no anchor matches", ("file", "class", "x, y, width, height", "best IoU"), rows
        )
    )


def _duplicates(report: DataReport, max_pixels: int) -> str:
    rows = []
    for each in report.duplicates[:SHOWN]:
        images = "".join(_thumbnail(Path(path), max_pixels) for path in (each.first, each.second))
        names = f"<code>{escape(each.first)}</code> and <code>{escape(each.second)}</code>, {each.similarity:.3f}"
        rows.append(f"<p class=pair>{names}<br>{images}</p>")
    return f"<h2>Images in two splits</h2>{''.join(rows)}" if rows else ""


def _thumbnail(path: Path, max_pixels: int) -> str:
    image = read_image(path, max_pixels=max_pixels)
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    return _picture(image, path.name)
