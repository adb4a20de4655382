"""What a format can hold survives the way there and back."""

import dataclasses
from pathlib import Path

import pytest
from PIL import Image

from fpnkit.data.annotated import AnnotatedImages, Record
from fpnkit.data.convert import FORMATS, convert
from fpnkit.data.read import read_data
from fpnkit.errors import ConfigError

MASK = [[1.0, 2.0, 30.5, 2.0, 30.5, 20.25]]


def entry(x, y, width, height, **more):
    return {"bbox": [x, y, width, height], "area": 0.5 * width * height, **more}


@pytest.fixture
def data(tmp_path) -> AnnotatedImages:
    """Boxes at fractions of pixels, a mask, a crowd, a background image, and two names that differ by folder alone."""
    rows = {
        "a/one.png": [(0, False, entry(1, 2, 29.5, 18.25, segmentation=MASK)), (1, True, entry(10, 5, 50, 30))],
        "b/one.png": [(1, False, entry(0, 0, 61, 37)), (1, False, entry(20.125, 7, 4 / 3, 3))],
        "none.png": [],
    }
    records = []
    for number, (name, objects) in enumerate(rows.items(), start=7):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (61, 37), (number, 0, 0)).save(path)
        labels, crowd, entries = zip(*objects, strict=True) if objects else ((), (), ())
        boxes = tuple((x, y, x + w, y + h) for x, y, w, h in (each["bbox"] for each in entries))
        records.append(Record(number, path, 61, 37, boxes, labels, crowd, entries, name))
    return AnnotatedImages(tuple(records), ("cat", "dog, large"), (3, 5), tmp_path / "images")


def told(dataset: AnnotatedImages, *, crowds: bool = True) -> list:
    """Images with classes, crowd flags and rounded boxes, whatever their names and ids."""
    rows = []
    for record in dataset.records:
        objects = zip(record.labels, record.crowd, record.boxes_xyxy, strict=True)
        kept = [
            (dataset.classes[label], crowd, *(round(side, 6) for side in box))
            for label, crowd, box in objects
            if crowds or not crowd
        ]
        rows.append((record.width, record.height, record.path.read_bytes(), kept))
    return rows


def there(data: AnnotatedImages, to: str, out: Path) -> AnnotatedImages:
    convert({"train": data}, to, out)
    return read_data(f"{out}:train" if to != "coco" else out)


def test_coco_holds_everything(data, tmp_path):
    back = there(data, "coco", tmp_path / "out")
    assert told(back) == told(data)
    assert (back.classes, back.category_ids) == (data.classes, data.category_ids)
    for ours, theirs in zip(back.records, data.records, strict=True):
        assert (ours.image_id, ours.file_name) == (theirs.image_id, theirs.file_name)
        for found, wanted in zip(ours.annotations, theirs.annotations, strict=True):
            assert {name: found[name] for name in wanted} == wanted


def test_voc_holds_boxes_and_crowds(data, tmp_path):
    assert told(there(data, "voc", tmp_path / "out")) == told(data)


def test_yolo_holds_boxes(data, tmp_path):
    assert told(there(data, "yolo", tmp_path / "out")) == told(data, crowds=False)
    assert convert({"val": data}, "yolo", tmp_path / "again").left_out == 1


@pytest.mark.parametrize("first", FORMATS)
@pytest.mark.parametrize("second", FORMATS)
def test_there_and_back(data, tmp_path, first, second):
    plain = [[not crowd for crowd in record.crowd] for record in data.records]
    keep = [
        dataclasses.replace(
            record,
            **{
                name: tuple(value for value, kept in zip(getattr(record, name), flags, strict=True) if kept)
                for name in ("boxes_xyxy", "labels", "crowd", "annotations")
            },
        )
        for record, flags in zip(data.records, plain, strict=True)
    ]
    data = dataclasses.replace(data, records=tuple(keep))
    once = there(data, first, tmp_path / "once")
    twice = there(once, second, tmp_path / "twice")
    assert told(there(twice, first, tmp_path / "back")) == told(once) == told(data)


def test_splits_stay_apart(data, tmp_path):
    train = dataclasses.replace(data, records=data.records[:2])
    val = dataclasses.replace(data, records=data.records[2:])
    for to in FORMATS:
        convert({"train": train, "val": val}, to, tmp_path / to)
        assert told(read_data(f"{tmp_path / to}:val")) == told(val)
        assert len(read_data(f"{tmp_path / to}:train").records) == 2


def test_nothing_is_overwritten(data, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="not an empty folder"):
        convert({"train": data}, "voc", tmp_path / "out")
