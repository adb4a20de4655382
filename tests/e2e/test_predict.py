"""What `fpnkit predict` writes, where, and what it leaves alone."""

import contextlib
import io
import os
import shutil

import pytest
from PIL import Image

pytestmark = pytest.mark.usefixtures("loaded")


def written(folder) -> list[str]:
    return sorted(each.relative_to(folder).as_posix() for each in folder.rglob("*") if each.is_file())


def test_predictions_have_the_documented_form(tmp_path, cli, photo, read_json, loaded):
    assert cli("predict", photo, "--out", tmp_path / "out", "--min-score", 0).code == 0
    content = read_json(tmp_path / "out" / "predictions.json")
    assert isinstance(content, list)
    (entry,) = content
    assert set(entry) == {"image", "width", "height", "detections"}
    assert (entry["image"], entry["width"], entry["height"]) == (str(photo), 64, 48)
    assert entry["detections"]
    scores = [detection["score"] for detection in entry["detections"]]
    assert scores == sorted(scores, reverse=True)
    for detection in entry["detections"]:
        assert set(detection) == {"label", "score", "box_xyxy", "level"}
        assert detection["label"] in loaded.classes
        assert 0 <= detection["score"] <= 1
        assert detection["level"] in (2, 3, 4, 5)
        left, top, right, bottom = detection["box_xyxy"]
        assert 0 <= left <= right <= 64
        assert 0 <= top <= bottom <= 48


def test_an_image_without_detections_is_listed(tmp_path, cli, photo, read_json):
    assert cli("predict", photo, "--out", tmp_path / "out", "--min-score", 1).code == 0
    assert read_json(tmp_path / "out" / "predictions.json")[0]["detections"] == []


def test_coco_format_is_read_by_pycocotools(tmp_path, cli, photo, read_json):
    pycocotools = pytest.importorskip("pycocotools.coco")
    other = photo.with_name("other.png")
    Image.open(photo).save(other)
    out = tmp_path / "out"
    assert cli("predict", photo, other, "--out", out, "--min-score", 0, "--format", "coco").code == 0
    with contextlib.redirect_stdout(io.StringIO()):
        listed = pycocotools.COCO(str(out / "images.json"))
        results = listed.loadRes(str(out / "predictions.json"))
    assert [image["file_name"] for image in listed.loadImgs([1, 2])] == [str(photo), str(other)]
    found = read_json(out / "predictions.json")
    assert len(results.getAnnIds(imgIds=[1])) == sum(each["image_id"] == 1 for each in found) > 0
    assert {each["category_id"] for each in found} <= set(listed.getCatIds())
    for each in found:
        x, y, width, height = each["bbox"]
        assert min(x, y, width, height) >= 0
        assert x + width <= 64.01
        assert y + height <= 48.01


def test_files_of_the_same_stem_get_pictures_of_their_own(tmp_path, cli, photo):
    folder = tmp_path / "in"
    (folder / "deeper").mkdir(parents=True)
    for name in ("a.jpg", "a.png", "a-2.jpg", "deeper/a.jpg"):
        Image.open(photo).save(folder / name)
    assert cli("predict", folder, folder / "a.jpg", "--out", tmp_path / "out").code == 0
    assert len(written(tmp_path / "out")) == 5 + 1
    assert "deeper/a.annotated.jpg" in written(tmp_path / "out")


def test_folders_are_searched_below_and_their_tree_is_kept(tmp_path, cli, photo, read_json):
    folder = tmp_path / "in"
    for name in ("top.jpg", "one/middle.JPG", "one/two/deep.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(photo, folder / name)
    (folder / "notes.txt").write_text("no image")
    assert cli("predict", folder, "--out", tmp_path / "out").code == 0
    pictures = ["one/middle.annotated.jpg", "one/two/deep.annotated.jpg", "predictions.json", "top.annotated.jpg"]
    assert written(tmp_path / "out") == pictures
    assert len(read_json(tmp_path / "out" / "predictions.json")) == 3


def test_photos_of_the_user_are_never_overwritten(tmp_path, cli, photo):
    mine = tmp_path / "photo.annotated.jpg"
    Image.new("RGB", (8, 8), "green").save(mine)
    before = {path: path.read_bytes() for path in (photo, mine)}
    assert cli("predict", photo, "--out", tmp_path).code == 0
    assert cli("predict", tmp_path, "--out", tmp_path).code == 0
    assert {path: path.read_bytes() for path in before} == before
    assert (tmp_path / "photo-2.annotated.jpg").is_file()


def test_a_link_to_a_photo_is_not_written_through(tmp_path, cli, photo):
    before = photo.read_bytes()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "photo.annotated.jpg").symlink_to(photo)
    assert cli("predict", photo, "--out", tmp_path / "out").code == 0
    assert photo.read_bytes() == before


def test_running_twice_finds_no_pictures_of_the_first_time(tmp_path, cli, photo, read_json):
    for out in (photo.parent, photo.parent / "found"):
        for _ in range(2):
            assert cli("predict", photo.parent, "--out", out).code == 0
            assert [each["image"] for each in read_json(out / "predictions.json")] == [str(photo)]
    names = ["found/photo.annotated.jpg", "found/predictions.json", "photo.annotated.jpg", "photo.jpg"]
    assert written(photo.parent) == [*names, "predictions.json"]
    cli("predict", photo.parent / "found", "--out", tmp_path).refuses(3, "nothing but pictures that fpnkit made")


@pytest.mark.parametrize("name", ["[bold]y.jpg", ":dog:.jpg", "zwölf Boxkämpfer.jpg", "-dash.jpg"])
def test_odd_names_are_printed_as_they_are(name, tmp_path, cli, photo, read_json):
    path = tmp_path / "[" / "red]" / name
    path.parent.mkdir(parents=True)
    shutil.copy(photo, path)
    broken = path.with_name("broken" + name)
    broken.write_bytes(b"no image")
    outcome = cli("predict", path, broken, "--out", tmp_path / "out")
    assert outcome.code == 4
    assert name in outcome.out
    assert f"skipped: {broken}: " in outcome.err
    assert read_json(tmp_path / "out" / "predictions.json")[0]["image"] == str(path)


def test_a_name_that_is_not_unicode_works(tmp_path, cli, photo, read_json):
    raw = os.fsencode(tmp_path) + b"/in/caf\xe9.jpg"
    (tmp_path / "in").mkdir()
    try:
        with open(raw, "wb") as file:
            file.write(photo.read_bytes())
    except OSError:
        pytest.skip("this file system takes Unicode names only")
    assert cli("predict", tmp_path / "in", "--out", tmp_path / "out").code == 0
    assert os.fsencode(read_json(tmp_path / "out" / "predictions.json")[0]["image"]) == raw


def test_the_real_command_predicts(tmp_path, start, photo, weights):
    process = start("predict", photo, "--model", weights, "--out", tmp_path / "out", "--device", "cpu")
    out, err = process.communicate(timeout=300)
    assert (process.returncode, err) == (0, "")
    assert written(tmp_path / "out") == ["photo.annotated.jpg", "predictions.json"]
    assert "1 images" in out
    assert str(tmp_path / "out") in out


def test_photos_of_several_sizes_in_batches_are_found_as_alone(tmp_path, cli, photo, read_json, loaded, monkeypatch):
    passes, detect = [], loaded.engine.detect

    def noted(images, config):
        passes.append(len(images))
        return detect(images, config)

    monkeypatch.setattr(loaded.engine, "detect", noted)
    folder = tmp_path / "in"
    folder.mkdir()
    for number, size in enumerate([(64, 48), (48, 64), (64, 48), (80, 80), (64, 48)]):
        Image.open(photo).resize(size).save(folder / f"{number}.png")
    (folder / "2b.png").write_bytes(b"no image")
    words = ("predict", folder, "--min-score", 0)
    assert cli(*words, "--out", tmp_path / "alone").code == 4
    assert passes == [1] * 5
    assert cli(*words, "--out", tmp_path / "batched", "--batch", 3).code == 4
    assert sorted(passes[5:]) == [1, 1, 1, 2]  # three of two sizes; two of two sizes and one that is no image
    alone, batched = (read_json(tmp_path / out / "predictions.json") for out in ("alone", "batched"))
    assert [each["image"] for each in batched] == [each["image"] for each in alone]
    for mine, wanted in zip(batched, alone, strict=True):
        for one, other in zip(mine["detections"][:5], wanted["detections"][:5], strict=True):
            assert one["score"] == pytest.approx(other["score"], abs=1e-3)
    assert len(written(tmp_path / "batched")) == 6


@pytest.mark.parametrize("option", ["--streams", "--batch"])
def test_nothing_at_a_time_is_refused(option, cli, photo, tmp_path):
    cli("predict", photo, option, 0, "--out", tmp_path / "out").refuses(2, f"{option} must be 1 or more")
