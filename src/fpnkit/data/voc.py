"""Pascal VOC: a folder with Annotations/*.xml, JPEGImages/ and lists of names in ImageSets/Main."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import DataError
from .annotated import AnnotatedImages, Box, Problem, Record
from .checks import shown
from .data_format import DataFormat, ReadOptions
from .paths import SUFFIXES, leads_out, slashed
from .source import Places, Source
from .writing import copy_images, image_names

LARGEST_FILE = 10_000_000
"""Bytes of one annotation file; nobody draws so many boxes."""

CORNERS = ("xmin", "ymin", "xmax", "ymax")


def voc_splits(root: Path) -> dict[str, Path]:
    """Name -> list of names, of the lists of whole images (`aeroplane_train.txt` and its like are of one class)."""
    lists = sorted((root / "ImageSets" / "Main").glob("*.txt"))
    names = {each.stem for each in lists}
    return {each.stem: each for each in lists if each.stem.rpartition("_")[2] not in names - {each.stem}}


def voc_source(root: Path, split: str | None) -> Source:
    """The entries of a VOC folder.

    Pixels of VOC are counted from 1 and the last one is inside: xmin 1, xmax 10 is the box 0..10. `difficult` is read
    as COCO's crowd: such objects are neither learnt from nor counted.

    Args:
        root: the folder.
        split: a list in ImageSets/Main, or every annotation.
    Raises:
        DataError: the list is not there or names nothing.
    """
    places = Places()
    source = Source(root, root / "JPEGImages", places)
    files = _listed(root, split)
    source.problems += [Problem(str(file), "file", "no such annotation file") for file in files if not file.is_file()]
    numbers = {name: number for number, name in enumerate(_class_names(root), start=1)}
    pictures = {each.stem: each.name for each in source.images_dir.glob("*") if each.suffix.lower() in SUFFIXES}
    for file in files:
        if file.is_file():
            try:
                _add(source, places, numbers, pictures, file)
            except ValueError as error:
                source.problems.append(Problem(str(file), "file", str(error)))
    for name, number in numbers.items():
        places.add("category", root, f"class {name}")
        source.categories.append({"id": number, "name": name})
    return source


def _class_names(root: Path) -> list[str]:
    """Of all annotations, so that a split that lacks a class counts classes as the others do."""
    names: set[str] = set()
    for file in (root / "Annotations").glob("*.xml"):
        try:
            names |= {(each.findtext("name") or "").strip() for each in _parsed(file).findall("object")}
        except (ValueError, OSError):
            continue  # named where it is read
    return sorted(names - {""})


def _listed(root: Path, split: str | None) -> list[Path]:
    annotations = root / "Annotations"
    if split is None:
        files = sorted(annotations.glob("*.xml"))
        if not files:
            raise DataError(f"{annotations}: no .xml file in it")
        return files
    path = voc_splits(root).get(split)
    if path is None:
        raise DataError(f"{root}: there is no split {split!r}: it has {', '.join(voc_splits(root)) or 'none'}")
    names = [line.split()[0] for line in path.read_text(errors="replace").splitlines() if line.split()]
    if not names:
        raise DataError(f"{path}: it names no image")
    for name in names:
        if leads_out(name):
            raise DataError(f"{path}: {shown(name)} leads out of the data set's folder")
    return [annotations / f"{name}.xml" for name in dict.fromkeys(names)]


def _add(source: Source, places: Places, numbers: dict[str, int], pictures: dict[str, str], file: Path) -> None:
    """Add an annotation file's image and objects.

    Raises:
        ValueError: nothing of it can be used.
    """
    tree = _parsed(file)
    size = tree.find("size")
    number = len(source.images) + 1
    entry: dict[str, Any] = {"id": number, "file_name": _picture(tree, file, pictures)}
    for side in ("width", "height"):
        entry[side] = _whole(None if size is None else size.findtext(side))
    places.add("image", file, "image")
    source.images.append(entry)
    for place, element in enumerate(tree.findall("object"), start=1):
        try:
            made = _object(element, number, numbers)
        except ValueError as error:
            source.problems.append(Problem(str(file), f"object {place}", str(error)))
        else:
            places.add("annotation", file, f"object {place}")
            source.annotations.append({"id": len(source.annotations) + 1, **made})


def _parsed(file: Path) -> ET.Element:
    content = file.read_bytes() if file.stat().st_size <= LARGEST_FILE else b""
    if not content.strip():
        raise ValueError("the file is empty" if file.stat().st_size <= LARGEST_FILE else "the file is far too large")
    if any(word in content.replace(b"\0", b"") for word in (b"<!DOCTYPE", b"<!ENTITY")):
        raise ValueError("it declares a document type or entities: nothing of the kind belongs into VOC")
    try:
        tree = ET.fromstring(content)
    except (ET.ParseError, ValueError, LookupError, RecursionError) as error:
        raise ValueError(f"not valid XML: {error}") from None
    if tree.tag != "annotation":
        raise ValueError(f"expected <annotation> at the top, got <{shown(tree.tag)[1:-1]}>")
    return tree


def _picture(tree: ET.Element, file: Path, pictures: dict[str, str]) -> str:
    """The name of the image: as written when it is there, else by the annotation's own name."""
    written = slashed(tree.findtext("filename") or "").strip()
    if written and leads_out(written):
        return written  # refused by the checks, in their words
    if PurePosixPath(written).name in pictures.values():
        return PurePosixPath(written).name
    return pictures.get(file.stem, written or f"{file.stem}.jpg")


def _object(element: ET.Element, image_id: int, numbers: dict[str, int]) -> dict[str, Any]:
    name = (element.findtext("name") or "").strip()
    if not name:
        raise ValueError("expected a name")
    box = element.find("bndbox")
    texts = [None if box is None else box.findtext(corner) for corner in CORNERS]
    try:
        x1, y1, x2, y2 = (float(text or "") for text in texts)
    except ValueError:
        raise ValueError(f"expected four numbers {', '.join(CORNERS)} in bndbox, got {shown(texts)}") from None
    if not all(map(math.isfinite, (x1, y1, x2, y2))):
        raise ValueError(f"bndbox {shown(texts)} holds a value that is not finite")
    if x2 <= x1 or y2 <= y1:
        raise ValueError(f"bndbox {shown(texts)} has no area: xmax must be above xmin and ymax above ymin")
    difficult = (element.findtext("difficult") or "0").strip()
    if difficult not in ("0", "1"):
        raise ValueError(f"expected difficult 0 or 1, got {shown(difficult)}")
    bbox = [x1 - 1, y1 - 1, x2 - x1 + 1, y2 - y1 + 1]
    return {"image_id": image_id, "category_id": numbers[name], "bbox": bbox, "iscrowd": int(difficult)}


def _whole(text: str | None) -> Any:
    try:
        return int(text or "")
    except ValueError:
        return text


def write_voc(root: Path, dataset: AnnotatedImages, split: str, names: Mapping[int, str]) -> int:
    """Write annotations and the list of a split; the images are not touched.

    Args:
        root: of the VOC folder.
        dataset: what to write; ids and outlines have no place in VOC.
        split: name of its list.
        names: image id -> name of the file in JPEGImages.
    Returns:
        How many boxes were left out: where the last pixel is inside, one of a pixel's width reads as one of none.
    """
    folder, lists = root / "Annotations", root / "ImageSets" / "Main"
    folder.mkdir(parents=True, exist_ok=True)
    lists.mkdir(parents=True, exist_ok=True)
    for record in dataset.records:
        name = names[record.image_id]
        tree = ET.ElementTree(_element(record, name, dataset.classes))
        ET.indent(tree)
        tree.write(folder / f"{Path(name).stem}.xml", encoding="utf-8")
    stems = (Path(names[record.image_id]).stem for record in dataset.records)
    (lists / f"{split}.txt").write_text("".join(f"{stem}\n" for stem in stems))
    return sum(_too_thin(each.bbox) for record in dataset.records for each in record.objects)


def _too_thin(bbox: Box) -> bool:
    return min(bbox[2:]) <= 1


def _element(record: Record, name: str, classes: tuple[str, ...]) -> ET.Element:
    top = ET.Element("annotation")
    ET.SubElement(top, "folder").text = "JPEGImages"
    ET.SubElement(top, "filename").text = name
    size = ET.SubElement(top, "size")
    for side, pixels in (("width", record.width), ("height", record.height), ("depth", 3)):
        ET.SubElement(size, side).text = str(pixels)
    for each in record.objects:
        if _too_thin(each.bbox):
            continue
        x, y, width, height = each.bbox
        element = ET.SubElement(top, "object")
        ET.SubElement(element, "name").text = classes[each.label]
        ET.SubElement(element, "difficult").text = str(int(each.crowd))
        box = ET.SubElement(element, "bndbox")
        for corner, value in zip(CORNERS, (x + 1, y + 1, x + width, y + height), strict=True):
            ET.SubElement(box, corner).text = f"{round(value, 6):.10g}"
    return top


def _sniff(path: Path) -> tuple[Path, str | None] | None:
    """A folder with Annotations/, or a list in its ImageSets/Main."""
    if path.is_dir():
        return (path, None) if (path / "Annotations").is_dir() else None
    is_list = path.suffix == ".txt" and path.parent.name == "Main" and path.parent.parent.name == "ImageSets"
    return (path.parent.parent.parent, path.stem) if is_list else None


def _read(root: Path, split: str | None, options: ReadOptions) -> list[Source]:
    """Without a split every annotation, whether a list names it or not."""
    return [voc_source(root, split)]


def _write(splits: Mapping[str, AnnotatedImages], out: Path, on_image: Callable[[], None]) -> int:
    left_out, taken = 0, set[str]()
    for split, dataset in splits.items():
        names = image_names(dataset, taken, flat=True)
        copy_images(dataset, out / "JPEGImages", names, on_image)
        left_out += write_voc(out, dataset, split, names)
    return left_out


FORMAT = DataFormat(
    name="voc",
    title="Pascal VOC",
    description="a VOC folder with Annotations/ and JPEGImages/, a VOC list in ImageSets/Main",
    writes="Annotations/, JPEGImages/, ImageSets/Main/SPLIT.txt",
    loses="VOC holds neither ids, areas, masks nor boxes of one pixel's width, and crowds become 'difficult'",
    sniff=_sniff,
    splits=lambda root: tuple(voc_splits(root)),
    read=_read,
    write=_write,
)
