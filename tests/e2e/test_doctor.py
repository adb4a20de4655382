"""The doctor names every bad record and nothing else, counts rightly, and its page shows what it says."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from fpnkit import zoo
from fpnkit.weights.checkpoint import ModelCard, save_weights

NAN, INFINITY = float("nan"), float("inf")

BAD_IMAGES = {
    "empty file": "the file is empty",
    "cut off": "damaged image",
    "no image": "not an image of a known format",
    "missing": "is not in",
    "other size": "the image is 32 x 32 pixels, its annotation says 33 x 32",
    "parent folder": "leads out of the image folder",
    "absolute": "leads out of the image folder",
    "no width": "expected a positive integer width",
    "height as text": "expected a positive integer height",
    "file of another": "already",
}

BAD_OBJECTS = {
    "NaN": ({"bbox": [NAN, 1, 5, 5]}, "not finite"),
    "infinity": ({"bbox": [1, 1, INFINITY, 5]}, "not finite"),
    "negative width": ({"bbox": [9, 9, -5, 5]}, "has no area"),
    "no height": ({"bbox": [9, 9, 5, 0]}, "has no area"),
    "outside": ({"bbox": [40, 9, 5, 5]}, "reaches out"),
    "strings": ({"bbox": ["1", "1", "5", "5"]}, "expected bbox"),
    "three numbers": ({"bbox": [1, 1, 5]}, "expected bbox"),
    "no box": ({"bbox": None}, "expected bbox"),
    "unknown class": ({"category_id": 77}, "is not among the categories"),
    "unknown image": ({"image_id": 7777}, "is not among the usable images"),
    "id of another": ({"id": 1}, "used twice"),
    "id as text": ({"id": "a"}, "integer id"),
    "crowd as text": ({"iscrowd": "no"}, "expected iscrowd"),
    "box of another": ({"bbox": [1, 2, 9, 9]}, "the same box"),
    "odd polygon": ({"segmentation": [[1, 2, 3, 4, 5]]}, "expected polygons"),
}

LITE = "faster_rcnn_lite0_fpn"

EACH = 8
"""Bad records of a kind."""


def spoil_image(kind: str, entry: dict, path) -> None:
    whole = path.read_bytes()
    if kind in ("empty file", "cut off", "no image"):
        path.write_bytes({"empty file": b"", "cut off": whole[: len(whole) // 2], "no image": b"hello"}[kind])
    elif kind == "missing":
        path.unlink()
    elif kind == "other size":
        entry["width"] = 33
    elif kind in ("parent folder", "absolute"):
        entry["file_name"] = {"parent folder": "../x.png", "absolute": "/etc/passwd"}[kind]
    elif kind == "no width":
        entry["width"] = 0
    elif kind == "height as text":
        entry["height"] = "32"
    else:
        entry["file_name"] = "1.jpg"


@pytest.fixture(scope="module")
def thousand(tmp_path_factory):
    """A COCO file of 1,000 images with two objects each, 200 of the records bad in 25 ways; reason of each by name."""
    folder, random = tmp_path_factory.mktemp("thousand"), np.random.default_rng(0)
    (folder / "images").mkdir()
    images, annotations, reasons = [], [], {}
    for number in range(1, 1001):
        name = f"{number}.{'jpg' if number % 2 else 'png'}"
        Image.fromarray(random.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / "images" / name)
        images.append({"id": number, "file_name": name, "width": 32, "height": 32})
        for place in range(2):
            box = [1 + place, 2 + place, 9, 9]
            entry = {"id": len(annotations) + 1, "image_id": number, "category_id": 1, "bbox": box, "iscrowd": 0}
            annotations.append(entry)
    kinds = [*BAD_IMAGES, *BAD_OBJECTS]
    for place in range(EACH * len(kinds)):
        number, kind = 5 * place + 3, kinds[place % len(kinds)]
        image = images[number - 1]
        if kind in BAD_IMAGES:
            path = folder / "images" / image["file_name"]
            spoil_image(kind, image, path)
            in_file = kind in ("empty file", "cut off", "no image", "other size")
            file = path if in_file else folder / "train.json"
            reasons[str(file), f"image {number}"] = BAD_IMAGES[kind]
        else:
            change, reason = BAD_OBJECTS[kind]
            annotation = annotations[2 * number - 1]
            annotation.update(change)
            shown = annotation["id"] if kind != "id as text" else "'a'"
            reasons.setdefault((str(folder / "train.json"), f"annotation {shown}"), reason)
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}
    (folder / "train.json").write_text(json.dumps(content))
    return folder, reasons


def test_two_hundred_bad_records_of_a_thousand_images_are_named(thousand, cli, tmp_path, read_json):
    folder, reasons = thousand
    outcome = cli("doctor", folder / "train.json", "--json", tmp_path / "report.json", "--html", tmp_path / "page.html")
    assert (outcome.code, outcome.err) == (3, "")
    report = read_json(tmp_path / "report.json")
    assert len(report["problems"]) == EACH * (len(BAD_IMAGES) + len(BAD_OBJECTS)) == 200
    for problem in report["problems"]:
        assert reasons[problem["file"], problem["record"]] in problem["reason"]
    assert {(each["file"], each["record"]) for each in report["problems"]} == set(reasons)  # ids may be used twice
    assert report["images"] == 1000
    assert report["splits"]["train"]["images"] == 1000 - EACH * len(BAD_IMAGES)
    assert report["splits"]["train"]["boxes"] == 2 * 920 - EACH * len(BAD_OBJECTS)
    page = (tmp_path / "page.html").read_text()
    assert "200 bad records" in page
    assert page.count("<img") == 1


def test_training_on_it_names_and_skips_or_stops(thousand, cli, tmp_path, training):
    folder, _ = thousand
    words = training(
        tmp_path / "run", "--data", folder / "train.json", "--images", folder / "images", "--classes", "thing"
    )
    outcome = cli(*words, "--val", folder / "train.json", "--val-images", folder / "images", "--dry-run")
    assert outcome.code == 0
    assert "920 images, 1 classes" in outcome.out
    assert "left out: 195 more records" in outcome.err
    cli(*words, "--dry-run", "--strict").refuses(3, "bad records)")


def test_good_data_has_no_problem(shapes, cli, tmp_path, read_json):
    train, val = shapes
    words = ("doctor", train.json, "--val", val.json, "--json", tmp_path / "report.json")
    assert cli(*words, "--model", "faster_rcnn_lite0_fpn").code == 0
    report = read_json(tmp_path / "report.json")
    assert (report["problems"], report["images"], report["boxes"]) == ([], 14, 28)
    assert report["splits"]["train"]["classes"] == {"square": 12, "disc": 12}
    assert report["splits"]["val"]["sizes"] == {
        "small": sum(each["area"] < 32**2 for each in val.content["annotations"]),
        "medium": sum(each["area"] >= 32**2 for each in val.content["annotations"]),
        "large": 0,
    }
    assert report["anchors"]["share"] == 1.0
    assert sum(report["anchors"]["levels"].values()) == 28


def test_images_of_two_splits_are_found_resized_and_mirrored(shapes, coco, cli, tmp_path, read_json):
    train = shapes[0]
    for name, other in {"1.png": "4.png", "2.png": "9.png"}.items():
        image = Image.open(train.images / other)
        changed = image.resize((80, 80)) if name == "1.png" else image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        changed.save(coco.images / name)
    for image in coco.content["images"][:1]:
        image.update(width=80, height=80)
    coco.content["annotations"] = [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 20, 20]},
        {"id": 2, "image_id": 2, "category_id": 1, "bbox": [1, 1, 20, 20]},
    ]
    words = ("doctor", train.json, "--val", coco.write().json, "--json", tmp_path / "report.json")
    outcome = cli(*words, "--html", tmp_path / "page.html")
    duplicates = read_json(tmp_path / "report.json")["duplicates"]
    found = {(re.split(r"[\\/]", each["first"])[-1], re.split(r"[\\/]", each["second"])[-1]) for each in duplicates}
    assert found == {("4.png", "1.png"), ("9.png", "2.png")}
    assert outcome.out.count("in two splits") == 2
    assert (tmp_path / "page.html").read_text().count("<img") == 1 + 2 * 2


def test_what_cannot_be_read_at_all_is_in_the_report_too(cli, tmp_path, read_json):
    (tmp_path / "broken.json").write_text("{")
    cli("doctor", tmp_path / "broken.json", "--json", tmp_path / "report.json").refuses(3, "not valid JSON")
    report = read_json(tmp_path / "report.json")
    assert (report["images"], report["boxes"]) == (0, 0)
    assert "not valid JSON" in report["problems"][0]["reason"]


def test_anchors_are_those_of_a_preset_of_weights_or_of_nobody(shapes, cli, tmp_path, read_json):
    """A run's weights bring their spec; a detector without anchors has no section of them."""
    weights = tmp_path / "preset.safetensors"
    save_weights(weights, zoo.build(LITE, 1), ModelCard.of_spec(zoo.preset(LITE), ("person",)))
    (tmp_path / "run" / "weights").mkdir(parents=True)
    (tmp_path / "run" / "weights" / "best.safetensors").write_bytes(weights.read_bytes())
    found = []
    for model in (LITE, weights, tmp_path / "run"):
        assert cli("doctor", shapes[1].json, "--model", model, "--json", tmp_path / "report.json").code == 0
        anchors = read_json(tmp_path / "report.json")["anchors"]
        assert anchors.pop("model") == str(model)
        found.append(anchors)
    assert found[0] == found[1] == found[2]
    own = tmp_path / "own.safetensors"
    network = zoo.build(LITE, 1)
    save_weights(own, network, ModelCard.of_detector(network, zoo.preset(LITE).preprocess, ("person",)))
    report, page = tmp_path / "report.json", tmp_path / "page.html"
    outcome = cli("doctor", shapes[1].json, "--model", own, "--json", report, "--html", page)
    assert outcome.code == 0
    assert read_json(report)["anchors"] is None
    assert "by an anchor" not in outcome.out
    assert "Levels and anchors" not in page.read_text()


def test_an_unknown_model_is_refused_before_the_data_is_read(cli, tmp_path):
    cli("doctor", tmp_path / "nothing", "--model", "coco8").refuses(2, "no preset", "'coco8'", "did you mean coco80?")


def test_pixels_are_limited(shapes, cli, tmp_path, read_json):
    val = shapes[1]
    assert cli("doctor", val.json, "--max-pixels", 96 * 96, "--model", LITE).code == 0
    outcome = cli("doctor", val.json, "--max-pixels", 96 * 96 - 1, "--model", LITE, "--json", tmp_path / "report.json")
    outcome.refuses(3, "96 x 96 is more than 9,215 pixels", "a higher --max-pixels takes it")


def test_images_of_another_format_than_coco_cannot_be_named(cli, tmp_path):
    (tmp_path / "voc" / "Annotations").mkdir(parents=True)
    outcome = cli("doctor", tmp_path / "voc", "--images", tmp_path)
    outcome.refuses(2, "--images is for COCO", "is Pascal VOC, which names its images itself")


def test_images_that_are_not_found_are_asked_for_by_option(coco, cli):
    coco.images.rename(coco.folder / "elsewhere")
    cli("doctor", coco.json).refuses(3, "its images are not in", "name their folder as --images")
