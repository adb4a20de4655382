"""What a format can hold survives the way there and back."""

import dataclasses
import json
from pathlib import Path

import pytest
from PIL import Image
from records import annotated_object

from fpnkit.data.annotated import AnnotatedImages, Record
from fpnkit.data.convert import convert
from fpnkit.data.formats import FORMATS
from fpnkit.data.outlines import Polygons, RunLengths
from fpnkit.data.read import read_data
from fpnkit.errors import ConfigError

MASKS = {
    "polygons": Polygons(((1.0, 2.0, 30.5, 2.0, 30.5, 20.25), (40, 3, 50, 3, 50, 9, 40, 9))),
    "run lengths": RunLengths((37, 61), (100, 57, 37 * 61 - 157)),
    "compressed": RunLengths((37, 61), "eWe03n0O1N2"),
}


@pytest.fixture
def data(tmp_path) -> AnnotatedImages:
    """Boxes at fractions of pixels, masks, a crowd, a background image, and two names that differ by folder alone."""
    rows = {
        "a/one.png": (
            annotated_object(1, 2, 30.5, 20.25, area=300.5, outline=MASKS["polygons"]),
            annotated_object(10, 5, 60, 35, label=1, crowd=True, outline=MASKS["run lengths"]),
        ),
        "b/one.png": (
            annotated_object(0, 0, 61, 37, label=1, outline=MASKS["compressed"]),
            annotated_object(20.125, 7, 20.125 + 4 / 3, 10, label=1),
        ),
        "none.png": (),
    }
    records = []
    for number, (name, objects) in enumerate(rows.items(), start=7):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (61, 37), (number, 0, 0)).save(path)
        records.append(Record(image_id=number, path=path, width=61, height=37, objects=objects, file_name=name))
    return AnnotatedImages(tuple(records), ("cat", "dog, large"), (3, 5), tmp_path / "images")


def told(dataset: AnnotatedImages, *, crowds: bool = True) -> list:
    """Images with classes, crowd flags and rounded boxes, whatever their names and ids."""
    rows = []
    for record in dataset.records:
        kept = [
            (dataset.classes[each.label], each.crowd, *(round(side, 6) for side in each.box_xyxy))
            for each in record.objects
            if crowds or not each.crowd
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
        assert (ours.image_id, ours.file_name, ours.objects) == (theirs.image_id, theirs.file_name, theirs.objects)


def test_coco_writes_outlines_exactly_as_they_were_read(data, tmp_path):
    """Numbers stay whole or fractions, and a compressed string stays that string."""
    convert({"train": data}, "coco", tmp_path / "out")
    written = json.loads((tmp_path / "out" / "train.json").read_text())["annotations"]
    assert [each.get("segmentation") for each in written] == [
        [[1.0, 2.0, 30.5, 2.0, 30.5, 20.25], [40, 3, 50, 3, 50, 9, 40, 9]],
        {"size": [37, 61], "counts": [100, 57, 37 * 61 - 157]},
        {"size": [37, 61], "counts": "eWe03n0O1N2"},
        None,
    ]
    assert all(type(side) is int for side in written[0]["segmentation"][1])
    assert [each["area"] for each in written] == [300.5, 1500, 61 * 37, pytest.approx(4)]


def test_voc_holds_boxes_and_crowds(data, tmp_path):
    assert told(there(data, "voc", tmp_path / "out")) == told(data)


def test_yolo_holds_boxes(data, tmp_path):
    assert told(there(data, "yolo", tmp_path / "out")) == told(data, crowds=False)
    assert convert({"val": data}, "yolo", tmp_path / "again").left_out == 1


@pytest.mark.parametrize("first", FORMATS)
@pytest.mark.parametrize("second", FORMATS)
def test_there_and_back(data, tmp_path, first, second):
    keep = (
        dataclasses.replace(record, objects=tuple(each for each in record.objects if not each.crowd))
        for record in data.records
    )
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


def test_an_unknown_format_is_refused_with_the_nearest(data, tmp_path):
    with pytest.raises(ConfigError, match=r"to: there is no format 'yollo': did you mean yolo\?"):
        convert({"train": data}, "yollo", tmp_path / "out")
    with pytest.raises(ConfigError, match="the formats are coco, voc, yolo"):
        convert({"train": data}, "?", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", FORMATS)
def test_what_the_table_says_that_is_lost_is_lost(name, data, tmp_path):
    """`loses` is empty exactly where a data set comes back as it was."""
    back = there(data, name, tmp_path / "out")
    same = [record.objects for record in back.records] == [record.objects for record in data.records]
    assert same is not bool(FORMATS[name].loses)
