"""What can be wrong with one entry in COCO's form: each function says it in words, or None."""

from __future__ import annotations

import reprlib
from typing import Any, TypeGuard

from .paths import leads_out

BORDER_TOLERANCE = 2.0
"""Pixels by which a box may stand out of its image, as rounding in real data sets makes it; it is clipped."""

LARGEST = 2**53
"""Beyond, floats do not tell neighbouring whole numbers apart."""

NO_ID = "expected an object with an integer id"

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 120


def category_problem(entry: Any, names: dict[int, str], taken: set[str]) -> str | None:
    """Against the ids in `names` and the names in `taken` so far."""
    if not is_id(entry) or not isinstance(entry.get("name"), str) or not entry["name"]:
        return "expected an integer id and a name"
    if entry["id"] in names:
        return "this category id is used twice"
    if entry["name"] in taken:
        return f"the name {shown(entry['name'])} is used twice"
    return None


def image_problem(entry: Any, seen: dict[int, dict[str, Any]]) -> str | None:
    """Against the images `seen` so far, by id; whether the file exists is not looked at."""
    if not is_id(entry):
        return NO_ID
    if entry["id"] in seen:
        return "this image id is used twice"
    name = entry.get("file_name")
    if not isinstance(name, str) or not name or "\0" in name:
        return "expected a file_name"
    if leads_out(name):
        return f"file_name {shown(name)} leads out of the image folder"
    for side in ("width", "height"):
        if not is_number(entry.get(side)) or not isinstance(entry[side], int) or not 1 <= entry[side] < LARGEST:
            return f"expected a positive integer {side}, got {shown(entry.get(side))}"
    return None


def annotation_problem(
    entry: Any, images: dict[int, dict[str, Any]], names: dict[int, str], seen: set[int]
) -> str | None:
    """Against the usable images and categories by id; notes the id in `seen`."""
    if not is_id(entry):
        return NO_ID
    if entry["id"] in seen:
        return "this annotation id is used twice"
    seen.add(entry["id"])
    if not _known_id(entry.get("image_id"), images):
        return f"image_id {shown(entry.get('image_id'))} is not among the usable images"
    if not _known_id(entry.get("category_id"), names):
        return f"category_id {shown(entry.get('category_id'))} is not among the categories"
    if entry.get("iscrowd") not in (0, 1, None):
        return f"expected iscrowd 0 or 1, got {shown(entry['iscrowd'])}"
    image = images[entry["image_id"]]
    return _box_problem(entry.get("bbox"), image) or _mask_problem(entry.get("segmentation"), image)


def _mask_problem(mask: Any, image: dict[str, Any]) -> str | None:
    """Of a `segmentation`: polygons, or COCO's run lengths of the whole image; None and an empty list are no mask."""
    if mask is None:
        return None
    if isinstance(mask, dict) and {"size", "counts"} <= mask.keys():
        return _run_lengths_problem(mask["size"], mask["counts"], [image["height"], image["width"]])
    if not isinstance(mask, list) or not all(isinstance(polygon, list) for polygon in mask):
        return f"expected segmentation as polygons or run lengths, got {shown(mask)}"
    for polygon in mask:
        if len(polygon) < 6 or len(polygon) % 2 or not all(is_number(each) and abs(each) < LARGEST for each in polygon):
            return f"expected polygons of three or more points, x and y of each, got {shown(polygon)}"
    return None


def _run_lengths_problem(size: Any, counts: Any, image_hw: list[int]) -> str | None:
    if size != image_hw:
        return f"expected run lengths of the image's size [height, width] {image_hw}, got size {shown(size)}"
    if isinstance(counts, str) and counts:
        return None
    if not isinstance(counts, list) or not all(_is_whole(each) and each >= 0 for each in counts):
        return f"expected run lengths with counts as a string or numbers of pixels, got {shown(counts)}"
    if sum(counts) != image_hw[0] * image_hw[1]:
        return f"run lengths count {shown(sum(counts))} pixels, their image has {image_hw[0] * image_hw[1]}"
    return None


def _box_problem(box: Any, image: dict[str, Any]) -> str | None:
    if not isinstance(box, list) or len(box) != 4 or not all(is_number(value) for value in box):
        return f"expected bbox [x, y, width, height], got {shown(box)}"
    if not all(abs(value) < LARGEST for value in box):
        return f"bbox {shown(box)} holds a value that is not finite or far too large"
    x, y, width, height = box
    if width <= 0 or height <= 0:
        return f"bbox {box} has no area: width and height must be above 0"
    outside = max(-x, -y, x + width - image["width"], y + height - image["height"])
    if outside > BORDER_TOLERANCE or x >= image["width"] or y >= image["height"] or x + width <= 0 or y + height <= 0:
        return f"bbox {box} reaches out of its image of {image['width']} x {image['height']} pixels"
    return None


def is_number(value: Any) -> bool:
    """JSON's true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_id(entry: Any) -> bool:
    """Whether a record is an object with a usable id."""
    number = entry.get("id") if isinstance(entry, dict) else None
    return _is_whole(number) and abs(number) < LARGEST


def _is_whole(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _known_id(value: Any, known: dict[int, Any]) -> bool:
    return _is_whole(value) and value in known


def id_or_place(entry: Any, place: int) -> str:
    """What to call a record in a message."""
    return shown(entry["id"]) if isinstance(entry, dict) and "id" in entry else f"at place {place}"


def shown(value: Any) -> str:
    """A value of the file for a message: short, whatever it is."""
    return _SHORT.repr(value)
