"""Every annotation file that cannot be used is refused in one line: the file, the record and the reason."""

import json

import pytest
from PIL import Image

from fpnkit.data.coco import read_coco
from fpnkit.errors import DataError
from fpnkit.evaluation.evaluate import evaluate

CHEAP = ("--model", "faster_rcnn_lite0_fpn", "--epochs", "1", "--batch-size", "2", "--crop", "32")
"""Should bad data be taken, so that the test fails fast."""


@pytest.fixture
def refused(cli, coco, tmp_path):
    """`fpnkit train --strict` on the spoilt data set ends with exit code 3 and a line with these words."""

    def check(*mentions, content=None, code=3, options=()):
        if content is None:
            coco.write()
        else:
            coco.json.write_bytes(content)
        data = ("--data", coco.json, "--images", coco.images, "--val", coco.json, "--val-images", coco.images)
        cli("train", *data, "--out", tmp_path / "run", "--strict", *CHEAP, *options).refuses(code, *mentions)

    return check


DEEP = b'{"images": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"

NOT_COCO = {
    "an empty file": (b"", "the file is empty"),
    "no JSON": (b"dear diary", "not valid JSON"),
    "cut off": (b'{"images": [{"id": 1, "file', "not valid JSON"),
    "not text": (b"\xff\xfe\x00\x80", "not valid JSON"),
    "nested deeply": (DEEP, "not valid JSON"),
    "a list": (b"[]", "expected a COCO object at the top, got a list"),
    "a number": (b"1", "expected a COCO object at the top, got a int"),
    "without images": (b'{"annotations": [], "categories": []}', "expected a list under 'images'"),
    "without annotations": (b'{"images": [], "categories": []}', "expected a list under 'annotations'"),
    "categories as an object": (b'{"images": [], "annotations": [], "categories": {}}', "list under 'categories'"),
    "no image listed": (b'{"images": [], "annotations": [], "categories": []}', "it lists no images"),
    "an endless number": (b'{"images": [' + b"9" * 5000 + b"]}", "not valid JSON"),
}


@pytest.mark.parametrize("kind", NOT_COCO)
def test_file_that_is_not_coco_is_refused(kind, refused, coco):
    content, reason = NOT_COCO[kind]
    refused(coco.json, reason, content=content)


def test_missing_file_and_folder_are_told_apart(cli, coco, tmp_path):
    rest = ("--val", coco.json, "--val-images", coco.images, "--out", tmp_path / "run", *CHEAP)
    cli("train", "--data", "no.json", "--images", coco.images, *rest).refuses(3, "no.json: no such file or folder")
    cli("train", "--data", coco.images, "--images", coco.images, *rest).refuses(3, f"{coco.images}: expected a COCO")
    cli("train", "--data", coco.json, "--images", "nowhere", *rest).refuses(3, "nowhere: no such image folder")
    cli("train", "--data", coco.json, "--images", coco.json, *rest).refuses(3, f"{coco.json}: not a folder")


def test_a_byte_order_mark_does_no_harm(coco):
    coco.json.write_bytes(b"\xef\xbb\xbf" + coco.json.read_bytes())
    assert len(read_coco(coco.json, coco.images).records) == 2


def test_data_without_val_is_asked_for_it(coco, cli, tmp_path):
    words = ("train", "--data", coco.json, "--out", tmp_path / "run")
    cli(*words).refuses(2, f"{coco.json} is not split into train and val (it has no splits): pass --val DATA")


NAN, INFINITY = float("nan"), float("inf")

BAD_ANNOTATIONS = {
    "NaN": ({"bbox": [NAN, 1, 5, 5]}, "bbox [nan, 1, 5, 5] holds a value that is not finite"),
    "Infinity": ({"bbox": [1, 1, INFINITY, 5]}, "not finite"),
    "beyond floats": ({"bbox": [1, 1, 10**400, 5]}, "far too large"),
    "negative width": ({"bbox": [9, 9, -5, 5]}, "has no area"),
    "zero height": ({"bbox": [9, 9, 5, 0]}, "has no area"),
    "right of the image": ({"bbox": [200, 9, 5, 5]}, "reaches out of its image of 96 x 96"),
    "above the image": ({"bbox": [9, -30, 5, 20]}, "reaches out"),
    "larger than the image": ({"bbox": [0, 0, 960, 96]}, "reaches out"),
    "strings": ({"bbox": ["1", "1", "5", "5"]}, "expected bbox [x, y, width, height]"),
    "booleans": ({"bbox": [True, True, 5, 5]}, "expected bbox"),
    "three numbers": ({"bbox": [1, 1, 5]}, "expected bbox"),
    "an object": ({"bbox": {"x": 1}}, "expected bbox"),
    "no box": ({"bbox": None}, "expected bbox"),
    "a book": ({"bbox": "x" * 100_000}, "expected bbox"),
    "unknown image": ({"image_id": 77}, "image_id 77 is not among the usable images"),
    "image id as text": ({"image_id": "1"}, "image_id '1' is not"),
    "image id as list": ({"image_id": [1]}, "image_id [1] is not"),
    "unknown category": ({"category_id": 77}, "category_id 77 is not among the categories"),
    "no category": ({"category_id": None}, "category_id None is not"),
    "crowd as text": ({"iscrowd": "0"}, "expected iscrowd 0 or 1, got '0'"),
    "duplicate id": ({"id": 1}, "annotation 1: this annotation id is used twice"),
    "id as text": ({"id": "a"}, "annotation 'a': expected an object with an integer id"),
    "mask of two points": ({"segmentation": [[1, 2, 3, 4]]}, "expected polygons of three or more points"),
    "mask as text": ({"segmentation": "0,0"}, "expected segmentation as polygons or run lengths"),
    "huge id": ({"id": 10**30}, "expected an object with an integer id"),
}


@pytest.mark.parametrize("kind", BAD_ANNOTATIONS)
def test_bad_annotation_is_named(kind, refused, coco):
    change, reason = BAD_ANNOTATIONS[kind]
    coco.content["annotations"][2].update(change)
    refused(f"{coco.json}: annotation {'3: ' if 'id' not in change else ''}", reason)


@pytest.mark.parametrize("entry", [None, 1, "text", [], {}, {"bbox": [1, 1, 5, 5]}])
def test_entries_of_another_type_are_named_by_their_place(entry, refused, coco):
    coco.content["annotations"][1] = entry
    refused("annotation at place 1: expected an object with an integer id")


BAD_IMAGES = {
    "duplicate id": ({"id": 1}, "image 1: this image id is used twice"),
    "no id": ({"id": None}, "image None: expected an object with an integer id"),
    "not on disk": ({"file_name": "gone.png"}, "image 2: 'gone.png' is not in"),
    "no name": ({"file_name": ""}, "image 2: expected a file_name"),
    "name is a number": ({"file_name": 7}, "image 2: expected a file_name"),
    "name with a null": ({"file_name": "a\0b.png"}, "image 2: expected a file_name"),
    "name too long": ({"file_name": "x" * 5000 + "/a.png"}, "image 2: "),
    "parent folder": ({"file_name": "../annotations.json"}, "'../annotations.json' leads out of the image folder"),
    "hidden parent folder": ({"file_name": "a/../../annotations.json"}, "leads out of the image folder"),
    "parent folder of Windows": ({"file_name": "..\\annotations.json"}, "leads out of the image folder"),
    "absolute": ({"file_name": "/etc/passwd"}, "'/etc/passwd' leads out of the image folder"),
    "absolute of Windows": ({"file_name": "\\etc\\passwd"}, "leads out of the image folder"),
    "width as text": ({"width": "96"}, "expected a positive integer width, got '96'"),
    "width NaN": ({"width": NAN}, "expected a positive integer width, got nan"),
    "negative height": ({"height": -1}, "expected a positive integer height, got -1"),
    "huge height": ({"height": 10**400}, "expected a positive integer height, got 1000"),
    "no height": ({"height": None}, "expected a positive integer height"),
}


@pytest.mark.parametrize("kind", BAD_IMAGES)
def test_bad_image_entry_is_named(kind, refused, coco):
    change, reason = BAD_IMAGES[kind]
    coco.content["images"][1].update(change)
    refused(coco.json, reason)


BAD_CATEGORIES = {
    "duplicate id": ({"id": 1}, "category 1: this category id is used twice"),
    "duplicate name": ({"name": "square"}, "category 2: the name 'square' is used twice"),
    "no name": ({"name": None}, "category 2: expected an integer id and a name"),
    "id as text": ({"id": "2"}, "category '2': expected an integer id and a name"),
}


@pytest.mark.parametrize("kind", BAD_CATEGORIES)
def test_bad_category_is_named(kind, refused, coco):
    change, reason = BAD_CATEGORIES[kind]
    coco.content["categories"][1].update(change)
    refused(coco.json, reason)


def test_an_error_stays_one_short_line_whatever_the_file_holds(cli, coco, tmp_path):
    coco.content["annotations"][0]["bbox"] = ["line\nbreak" * 1000] * 4
    coco.content["images"][0]["file_name"] = "../" * 1000
    coco.write()
    data = ("--data", coco.json, "--images", coco.images, "--val", coco.json, "--val-images", coco.images)
    outcome = cli("train", *data, "--out", tmp_path / "run", "--strict", *CHEAP)
    outcome.refuses(3)
    assert len(outcome.err) < 600


def test_no_usable_category_is_refused(refused, coco):
    coco.content["categories"] = []
    refused(coco.json, "no usable categories")


def test_unknown_class_is_refused_with_the_known_ones(refused):
    refused("there is no class 'disk': did you mean 'disc'?", options=("--classes", "square", "disk"))
    refused("there is no class 'person'", "the classes are disc, square", options=("--classes", "person"))


def test_class_asked_for_twice_is_refused(refused):
    refused("class 'disc' is named twice", options=("--classes", "disc", "disc"))


def test_bad_records_are_named_and_left_out_by_default(coco):
    before = [len(record.labels) for record in read_coco(coco.json, coco.images).records]
    coco.content["annotations"][2]["bbox"] = [NAN] * 4
    data = read_coco(coco.write().json, coco.images)
    assert [len(record.labels) for record in data.records] == [before[0], before[1] - 1]
    (problem,) = data.problems
    assert str(problem).startswith(f"{coco.json}: annotation 3: bbox")
    with pytest.raises(DataError, match="annotation 3"):
        read_coco(coco.json, coco.images, strict=True)


def test_objects_of_a_refused_image_are_not_named_once_more(coco):
    coco.content["images"][0]["file_name"] = "gone.png"
    data = read_coco(coco.write().json, coco.images)
    assert [problem.record for problem in data.problems] == ["image 1"]
    assert [record.image_id for record in data.records] == [2]


def test_data_without_any_object_is_refused_before_training(refused, coco):
    coco.content["annotations"] = []
    refused(coco.json, "no object of square, disc")


def test_validation_data_without_objects_is_refused_before_training(cli, coco, tmp_path):
    empty = coco.folder / "empty.json"
    crowds = [{**each, "iscrowd": 1} for each in coco.content["annotations"]]
    empty.write_text(json.dumps({**coco.content, "annotations": crowds}))
    data = ("--data", coco.json, "--images", coco.images, "--val", empty, "--val-images", coco.images)
    cli("train", *data, "--out", tmp_path / "run", *CHEAP).refuses(3, f"{empty}: no object of square, disc")
    assert not (tmp_path / "run" / "weights").exists()


def test_names_with_backslashes_are_folders(coco):
    (coco.images / "deeper").mkdir()
    (coco.images / "1.png").rename(coco.images / "deeper" / "1.png")
    coco.content["images"][0]["file_name"] = "deeper\\1.png"
    coco.write()
    assert read_coco(coco.json, coco.images).records[0].path.is_file()


SMALL = {"height": 95}


def test_images_that_cannot_be_used_are_left_out(cli, coco, tmp_path, loaded):
    coco.content["categories"][0]["name"] = "person"
    (coco.images / "2.png").write_bytes((coco.images / "2.png").read_bytes()[:200])
    words = ("evaluate", "x", "--data", coco.write().json, "--out", tmp_path / "out")
    outcome = cli(*words)
    assert outcome.code == 0
    assert f"left out: {coco.images / '2.png'}: image 2: damaged image" in outcome.err
    cli(*words, "--strict").refuses(3, f"{coco.images / '2.png'}: damaged image")
    coco.content["images"][0].update(SMALL)
    coco.content["annotations"] = [each for each in coco.content["annotations"] if sum(each["bbox"][1::2]) < 95]
    coco.write()
    cli(*words).refuses(3, "none of the 2 images can be used")


@pytest.mark.parametrize("workers", [0, 1])
class TestWhileLoading:
    """Images that were good when they were checked, decoded in this thread or in another."""

    @pytest.fixture
    def evaluated(self, coco, untrained, workers):
        coco.content["categories"][0]["name"] = "person"
        data = read_coco(coco.write().json, coco.images, classes=["person"])
        return lambda: evaluate(untrained.engine, data, untrained.preprocess, workers=workers)

    def test_image_of_another_size_than_annotated_is_named(self, evaluated, coco):
        Image.new("RGB", (96, 97)).save(coco.images / "1.png")
        with pytest.raises(DataError, match=r"1\.png: the image is 96 x 97 pixels, its annotation says 96 x 96"):
            evaluated()

    def test_damaged_image_is_named(self, evaluated, coco):
        (coco.images / "2.png").write_bytes((coco.images / "2.png").read_bytes()[:200])
        with pytest.raises(DataError, match=r"2\.png: damaged image"):
            evaluated()
