"""YOLO: data.yaml with names and folders of images, and a .txt of normalised boxes beside each image."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import DataError
from .annotated import AnnotatedImages, AnnotatedObject, Problem, Record
from .checks import shown
from .data_format import DataFormat, ReadOptions
from .paths import SUFFIXES, leads_out
from .source import Places, Source
from .writing import copy_images, image_names

SPLITS = ("train", "val", "test")

SLACK = 0.01
"""Share of a side by which a normalised box may stand out of its image, as rounding makes it."""


def yolo_splits(path: Path) -> dict[str, Any]:
    """Split -> what data.yaml says of it.

    Raises:
        DataError: no usable data.yaml.
    """
    content = _load(path)
    return {name: content[name] for name in SPLITS if content.get(name)}


def yolo_source(path: Path, split: str, *, max_pixels: int) -> Source:
    """The entries of one split of a YOLO data set.

    Args:
        path: data.yaml.
        split: `train`, `val` or `test`.
        max_pixels: see `read_image`.
    Raises:
        DataError: no usable data.yaml, or the split is not in it, leads out of its folder or holds no images.
    """
    content, places, root = _load(path), Places(), path.parent
    names = _names(content, path)
    source = Source(path, root, places)
    for number, name in enumerate(names):
        places.add("category", path, f"class {number}")
        source.categories.append({"id": number + 1, "name": name})
    pictures = _pictures(path, content, split)
    labels = {_label_file(root, each): each for each in pictures}
    for picture in pictures:
        _add(source, places, picture, len(names), max_pixels)
    for folder in sorted({each.parent for each in labels}):
        for orphan in sorted(set(folder.glob("*.txt")) - labels.keys()):
            if orphan.name != "classes.txt":
                source.problems.append(Problem(str(orphan), "file", "there is no image for these labels"))
    return source


def _load(path: Path) -> dict[str, Any]:
    import yaml  # not above: help texts import this file for its `FORMAT`

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected names and folders of images, got a {type(content).__name__}")
    return content


def _names(content: dict[str, Any], path: Path) -> list[str]:
    names = content.get("names")
    if isinstance(names, dict) and list(names) == list(range(len(names))):
        names = list(names.values())
    if not isinstance(names, list) or not names or not all(isinstance(each, str | int) for each in names):
        raise DataError(f"{path}: expected names: a list, or numbers from 0 on with a name each; got {shown(names)}")
    if content.get("nc", len(names)) != len(names):
        raise DataError(f"{path}: nc says {shown(content['nc'])} classes, names has {len(names)}")
    return [str(each) for each in names]


def _pictures(path: Path, content: dict[str, Any], split: str) -> list[Path]:
    places = content.get(split)
    if not places:
        there = ", ".join(name for name in SPLITS if content.get(name)) or "none"
        raise DataError(f"{path}: there is no split {split!r}: it has {there}")
    found: list[Path] = []
    for place in places if isinstance(places, list) else [places]:
        if not isinstance(place, str):
            raise DataError(f"{path}: {split}: expected a folder of images, got {shown(place)}")
        found += _listed(path, str(content.get("path") or "."), place)
    if not found:
        raise DataError(f"{path}: {split}: no images in {shown(places)}")
    return sorted(set(found))


def _listed(path: Path, base: str, place: str) -> list[Path]:
    """Images of a folder, or of a list in a .txt; never from outside of the data set's own folder."""
    root = path.parent
    options = [PurePosixPath(base) / place, PurePosixPath(place), PurePosixPath(place.removeprefix("../"))]
    inside = [root / each for each in options if not leads_out(str(each))]
    if not inside:
        raise DataError(f"{path}: {shown(place)} leads out of the data set's folder: name folders below {root}")
    there = next((each for each in inside if each.exists()), None)
    if there is None:
        raise DataError(f"{path}: {shown(place)} is not below {root}")
    if there.is_dir():
        return [each for each in there.rglob("*") if each.suffix.lower() in SUFFIXES and each.is_file()]
    lines = [line.strip() for line in there.read_text(errors="replace").splitlines() if line.strip()]
    if out := next((line for line in lines if leads_out(line)), None):
        raise DataError(f"{there}: {shown(out)} leads out of the data set's folder")
    return [root / line for line in lines]


def _label_file(root: Path, picture: Path) -> Path:
    """images/a/b.jpg -> labels/a/b.txt; without a folder `images` beside the image."""
    parts = list(picture.relative_to(root).parts)
    for place in range(len(parts) - 2, -1, -1):
        if parts[place] == "images":
            parts[place] = "labels"
            break
    return root.joinpath(*parts).with_suffix(".txt")


def _add(source: Source, places: Places, picture: Path, classes: int, max_pixels: int) -> None:
    from .images import image_wh  # not above: help texts import this file for its `FORMAT`

    root, number = source.images_dir, len(source.images) + 1
    labels = _label_file(root, picture)
    try:
        width, height = image_wh(picture, max_pixels=max_pixels)
        text = labels.read_text(encoding="utf-8") if labels.is_file() else ""
    except DataError as error:
        reason = str(error).removeprefix(f"{picture}: ")
        source.problems.append(Problem(str(picture), "image", reason))
        return
    except (OSError, ValueError):
        source.problems.append(Problem(str(labels), "file", "not a text file that can be read"))
        text = ""
    name = picture.relative_to(root).as_posix()
    places.add("image", picture, "image")
    source.images.append({"id": number, "file_name": name, "width": width, "height": height})
    for place, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            made = _object(line.split(), classes, width, height)
        except ValueError as error:
            source.problems.append(Problem(str(labels), f"line {place}", str(error)))
        else:
            places.add("annotation", labels, f"line {place}")
            source.annotations.append({"id": len(source.annotations) + 1, "image_id": number, **made})


def _object(words: Sequence[str], classes: int, width: int, height: int) -> dict[str, Any]:
    """A line `class cx cy w h`, or `class x1 y1 x2 y2 ...` of a polygon, in shares of the image's sides."""
    try:
        label, values = float(words[0]), [float(word) for word in words[1:]]
    except ValueError:
        raise ValueError(f"expected numbers, got {shown(' '.join(words))}") from None
    if len(values) != 4 and (len(values) < 6 or len(values) % 2):
        raise ValueError(f"expected a class and 4 numbers, or a class and the points of a polygon, got {len(words)}")
    if not (label.is_integer() and 0 <= label < classes):
        raise ValueError(f"class {words[0]} is not one of 0..{classes - 1}")
    if not all(map(math.isfinite, values)):
        raise ValueError(f"{shown(' '.join(words))} holds a value that is not finite")
    mask: dict[str, Any] = {}
    if len(values) == 4:
        center_x, center_y, share_x, share_y = values
        left, top = center_x - share_x / 2, center_y - share_y / 2
    else:
        left, top = min(values[0::2]), min(values[1::2])
        share_x, share_y = max(values[0::2]) - left, max(values[1::2]) - top
        scale = (width, height) * (len(values) // 2)
        mask = {"segmentation": [[share * side for share, side in zip(values, scale, strict=True)]]}
    if share_x <= 0 or share_y <= 0:
        raise ValueError(f"{shown(' '.join(words))} has no area: width and height must be above 0")
    if min(left, top) < -SLACK or max(left + share_x, top + share_y) > 1 + SLACK:
        raise ValueError(f"{shown(' '.join(words))} reaches out of the image: shares of its sides lie in 0..1")
    bbox = [left * width, top * height, share_x * width, share_y * height]
    return {"category_id": int(label) + 1, "bbox": bbox, **mask}


def write_yolo(root: Path, dataset: AnnotatedImages, split: str, names: Mapping[int, str]) -> int:
    """Write the label files of a split; the images and data.yaml are not touched.

    Args:
        root: of the data set.
        dataset: what to write; ids and outlines are left out.
        split: name of its folder.
        names: image id -> name of the file in images/SPLIT.
    Returns:
        How many crowds were left out: YOLO would take each for one object.
    """
    for record in dataset.records:
        lines = (_line(each, record) for each in record.objects if not each.crowd)
        file = (root / "labels" / split / names[record.image_id]).with_suffix(".txt")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(lines))
    return sum(each.crowd for record in dataset.records for each in record.objects)


def _line(each: AnnotatedObject, record: Record) -> str:
    x, y, width, height = each.bbox
    centre = ((x + width / 2) / record.width, (y + height / 2) / record.height)
    sides = (width / record.width, height / record.height)
    return f"{each.label} " + " ".join(f"{share:.12g}" for share in (*centre, *sides)) + "\n"


def write_data_yaml(root: Path, classes: Sequence[str], splits: Sequence[str]) -> None:
    """Write data.yaml; `train` and `val` are what trainers ask for."""
    import yaml

    content: dict[str, Any] = {split: f"images/{split}" for split in splits}
    content["names"] = dict(enumerate(classes))
    (root / "data.yaml").write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")


def _sniff(path: Path) -> tuple[Path, str | None] | None:
    """A data.yaml, or the folder that holds it."""
    if path.is_dir():
        if (path / "data.yaml").is_file():
            return path / "data.yaml", None
        if (path / "labels").is_dir():
            raise DataError(f"{path}: YOLO labels without {path / 'data.yaml'}: write one with the classes' names")
        return None
    return (path, None) if path.suffix.lower() in (".yaml", ".yml") else None


def _read(root: Path, split: str | None, options: ReadOptions) -> list[Source]:
    """
    Raises:
        DataError: see `yolo_source`; or data.yaml names no images at all.
    """
    splits = [split] if split else list(yolo_splits(root))
    if not splits:
        raise DataError(f"{root}: it names no train, val or test folder")
    return [yolo_source(root, each, max_pixels=options.max_pixels) for each in splits]


def _write(splits: Mapping[str, AnnotatedImages], out: Path, on_image: Callable[[], None]) -> int:
    left_out = 0
    for split, dataset in splits.items():
        names = image_names(dataset, set())
        copy_images(dataset, out / "images" / split, names, on_image)
        left_out += write_yolo(out, dataset, split, names)
    write_data_yaml(out, next(iter(splits.values())).classes, list(splits))
    return left_out


FORMAT = DataFormat(
    name="yolo",
    title="YOLO",
    description="a YOLO data.yaml (or its folder)",
    writes="data.yaml, images/SPLIT/, labels/SPLIT/",
    loses="YOLO holds boxes alone, and crowds are left out",
    sniff=_sniff,
    splits=lambda root: tuple(yolo_splits(root)),
    read=_read,
    write=_write,
)
