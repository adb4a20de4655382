"""VOC and YOLO folders: literals, every kind of mistake named, and no way out of the data set's folder."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from fpnkit.data.annotated import joined, selected
from fpnkit.data.coco import as_coco
from fpnkit.data.convert import convert
from fpnkit.data.data_format import DataFormat, ReadOptions
from fpnkit.data.formats import FORMATS
from fpnkit.data.outlines import Polygons, RunLengths
from fpnkit.data.read import find_data, read_data
from fpnkit.data.source import Places, Source
from fpnkit.errors import ConfigError, DataError

VOC = """<annotation><filename>{filename}</filename>
<size><width>{width}</width><height>40</height><depth>3</depth></size>{objects}</annotation>"""

OBJECT = """<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>
<xmin>{xmin}</xmin><ymin>{ymin}</ymin><xmax>{xmax}</xmax><ymax>{ymax}</ymax></bndbox></object>"""

BOX = {"name": "cat", "difficult": 0, "xmin": 1, "ymin": 11, "xmax": 20, "ymax": 40}


def picture(path: Path, width: int = 60) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, 40), "grey").save(path)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def obj(**changes) -> str:
    return OBJECT.format(**{**BOX, **changes})


def xml(*objects: str, filename="a.jpg", width=60) -> str:
    return VOC.format(filename=filename, width=width, objects="".join(objects or (obj(),)))


@pytest.fixture
def voc(tmp_path) -> Path:
    """Three images: a cat and a difficult dog, a cat, nothing."""
    root = tmp_path / "voc"
    for name in "abc":
        picture(root / "JPEGImages" / f"{name}.jpg")
    write(root / "Annotations" / "a.xml", xml(obj(), obj(name="dog", difficult=1, xmin=31, xmax=60)))
    write(root / "Annotations" / "b.xml", xml(filename="b.jpg"))
    write(root / "Annotations" / "c.xml", VOC.format(filename="c.jpg", width=60, objects=""))
    for split, names in {"train": "a\n", "val": "c\n", "cat_train": "a 1\n"}.items():
        write(root / "ImageSets" / "Main" / f"{split}.txt", names)
    return root


@pytest.fixture
def yolo(tmp_path) -> Path:
    """An image to train with a box and a polygon, an empty one to validate."""
    root = tmp_path / "yolo"
    for split in ("train", "val"):
        picture(root / "images" / split / "a.jpg")
    write(root / "labels" / "train" / "a.txt", "1 0.5 0.5 0.5 0.25\n0 0.1 0.1 0.5 0.1 0.5 0.6\n")
    write(root / "data.yaml", "train: images/train\nval: images/val\nnames: [cat, dog]\n")
    return root


def test_voc_counts_pixels_from_one_and_the_last_is_inside(voc):
    data = read_data(voc)
    assert data.classes == ("cat", "dog")
    first, second, third = data.records
    assert first.boxes_xyxy == ((0, 10, 20, 40), (30, 10, 60, 40))
    assert (first.labels, first.crowd) == ((0, 1), (False, True))
    assert (second.labels, third.labels) == ((0,), ())


def test_voc_splits_are_lists_of_whole_images(voc):
    assert find_data(voc).splits == ("train", "val")
    assert [record.path.name for record in read_data(f"{voc}:val").records] == ["c.jpg"]
    assert [each.path.name for each in read_data(voc / "ImageSets" / "Main" / "train.txt").records] == ["a.jpg"]
    assert read_data(f"{voc}:val").classes == ("cat", "dog")  # though it holds neither
    with pytest.raises(DataError, match="there is no split 'test': it has train, val"):
        read_data(f"{voc}:test")


def test_yolo_boxes_and_polygons(yolo):
    data = read_data(f"{yolo}:train")
    (record,) = data.records
    assert data.classes == ("cat", "dog")
    assert record.labels == (1, 0)
    assert record.boxes_xyxy[0] == pytest.approx((15, 15, 45, 25))
    assert record.boxes_xyxy[1] == pytest.approx((6, 4, 30, 24))
    assert record.objects[0].outline is None
    (polygon,) = record.objects[1].outline.polygons
    assert polygon == pytest.approx([6, 4, 30, 4, 30, 24])
    assert read_data(f"{yolo}:val").records[0].labels == ()
    assert len(read_data(yolo).records) == 2


BAD_VOC = {
    "empty": ("", "file: the file is empty"),
    "no XML": ("cat", "file: not valid XML"),
    "cut off": (xml()[:200], "file: not valid XML"),
    "another XML": ("<svg/>", "file: expected <annotation> at the top, got <svg>"),
    "entities": (f'<!DOCTYPE a [<!ENTITY x "y">]>{xml()}', "file: it declares a document type"),
    "external entity": (f'<!DOCTYPE a SYSTEM "file:///etc/passwd">{xml()}', "file: it declares a document type"),
    "no size": ("<annotation><filename>a.jpg</filename></annotation>", "image: expected a positive integer width"),
    "width as text": (xml(width="wide"), "image: expected a positive integer width, got 'wide'"),
    "width 0": (xml(width=0), "image: expected a positive integer width, got 0"),
    "no name": (xml(obj(name=" ")), "object 1: expected a name"),
    "corner as text": (xml(obj(xmax="far")), "object 1: expected four numbers xmin, ymin, xmax, ymax"),
    "corner missing": (xml("<object><name>cat</name></object>"), "object 1: expected four numbers"),
    "NaN": (xml(obj(xmin="nan")), "object 1: bndbox ['nan', '11', '20', '40'] holds a value that is not finite"),
    "infinity": (xml(obj(xmax="inf")), "object 1: bndbox"),
    "reversed": (xml(obj(xmin=30)), "has no area: xmax must be above xmin"),
    "a point": (xml(obj(xmin=20, ymin=40)), "has no area"),
    "outside": (xml(obj(xmax=90)), "object 1: bbox [0.0, 10.0, 90.0, 30.0] reaches out of its image of 60 x 40"),
    "difficult as text": (xml(obj(difficult="very")), "object 1: expected difficult 0 or 1, got 'very'"),
    "twice the same": (xml(obj(), obj()), "object 2: the same box of the same class as object 1"),
    "another folder": (xml(filename="../../a.jpg"), "image: file_name '../../a.jpg' leads out"),
    "absolute": (xml(filename="/etc/passwd"), "image: file_name '/etc/passwd' leads out"),
    "drive of Windows": (xml(filename="C:\\a.jpg"), "image: file_name 'C:/a.jpg' leads out"),
}


@pytest.mark.parametrize("kind", BAD_VOC)
def test_bad_voc_is_named(kind, voc):
    content, reason = BAD_VOC[kind]
    file = write(voc / "Annotations" / "a.xml", content)
    (problem,) = read_data(voc).problems
    assert str(problem).startswith(f"{file}: ")
    assert reason in str(problem)
    with pytest.raises(DataError):
        read_data(voc, strict=True)


def test_voc_image_or_annotation_that_is_not_there_is_named(voc):
    (voc / "JPEGImages" / "a.jpg").unlink()
    write(voc / "ImageSets" / "Main" / "val.txt", "b\nd\n")
    assert [str(each) for each in read_data(voc).problems] == [
        f"{voc / 'Annotations' / 'a.xml'}: image: 'a.jpg' is not in {voc / 'JPEGImages'}"
    ]
    assert [str(each) for each in read_data(f"{voc}:val").problems] == [
        f"{voc / 'Annotations' / 'd.xml'}: file: no such annotation file"
    ]


def test_voc_list_that_leads_out_is_refused(voc):
    write(voc / "ImageSets" / "Main" / "val.txt", "../../secret\n")
    with pytest.raises(DataError, match="leads out of the data set's folder"):
        read_data(f"{voc}:val")


BAD_YOLO = {
    "text": ("1 0.5 0.5 half 0.25", "line 1: expected numbers, got '1 0.5 0.5 half 0.25'"),
    "three numbers": ("1 0.5 0.5 0.5", "line 1: expected a class and 4 numbers, or a class and the points"),
    "half a point": ("1 0.1 0.1 0.5 0.1 0.5 0.6 0.2", "line 1: expected a class and 4 numbers"),
    "unknown class": ("2 0.5 0.5 0.5 0.25", "line 1: class 2 is not one of 0..1"),
    "negative class": ("-1 0.5 0.5 0.5 0.25", "line 1: class -1 is not one of 0..1"),
    "half a class": ("0.5 0.5 0.5 0.5 0.25", "line 1: class 0.5 is not one of 0..1"),
    "NaN": ("1 nan 0.5 0.5 0.25", "line 1: '1 nan 0.5 0.5 0.25' holds a value that is not finite"),
    "infinity": ("1 inf 0.5 0.5 0.25", "line 1: '1 inf 0.5 0.5 0.25' holds a value that is not finite"),
    "no width": ("1 0.5 0.5 0 0.25", "has no area"),
    "negative height": ("1 0.5 0.5 0.5 -0.25", "has no area"),
    "pixels": ("1 30 20 30 10", "reaches out of the image: shares of its sides lie in 0..1"),
    "outside": ("1 0.9 0.5 0.5 0.25", "reaches out of the image"),
    "twice the same": ("1 0.5 0.5 0.5 0.25\n\n1 0.5 0.5 0.5 0.25", "line 3: the same box of the same class as line 1"),
    "flat polygon": ("0 0.1 0.1 0.5 0.1 0.9 0.1", "has no area"),
}


@pytest.mark.parametrize("kind", BAD_YOLO)
def test_bad_yolo_line_is_named(kind, yolo):
    content, reason = BAD_YOLO[kind]
    file = write(yolo / "labels" / "train" / "a.txt", content)
    (problem,) = read_data(f"{yolo}:train").problems
    assert str(problem).startswith(f"{file}: line ")
    assert reason in str(problem)


def test_yolo_files_without_partner_are_named(yolo):
    (yolo / "images" / "train" / "b.jpg").write_bytes(b"no image")
    orphan = write(yolo / "labels" / "train" / "c.txt", "0 0.5 0.5 0.5 0.5\n")
    (yolo / "labels" / "train" / "a.txt").write_bytes(b"\xff\xfe\x00")
    assert {str(each) for each in read_data(f"{yolo}:train").problems} == {
        f"{yolo / 'images' / 'train' / 'b.jpg'}: image: not an image of a known format (JPEG, PNG, WEBP, BMP, TIFF)",
        f"{orphan}: file: there is no image for these labels",
        f"{yolo / 'labels' / 'train' / 'a.txt'}: file: not a text file that can be read",
    }


BAD_YAML = {
    "empty": ("", "expected names and folders of images, got a NoneType"),
    "no YAML": ("a: [b", "not valid YAML"),
    "an object": ("!!python/object/apply:os.system ['true']", "not valid YAML"),
    "no names": ("train: images/train", "expected names: a list"),
    "gap": ("train: images/train\nnames: {0: cat, 2: dog}", "numbers from 0 on"),
    "wrong nc": ("train: images/train\nnc: 3\nnames: [cat, dog]", "nc says 3 classes, names has 2"),
    "a number": ("train: 7\nnames: [cat, dog]", "train: expected a folder of images, got 7"),
    "nowhere": ("train: pictures\nnames: [cat, dog]", "'pictures' is not below"),
    "parent": ("train: ../../other\nnames: [cat, dog]", "'../../other' leads out of the data set's folder"),
    "absolute": ("train: /etc\nnames: [cat, dog]", "'/etc' leads out of the data set's folder"),
    "no images": ("train: labels/train\nnames: [cat, dog]", "no images in 'labels/train'"),
}


@pytest.mark.parametrize("kind", BAD_YAML)
def test_bad_data_yaml_is_refused(kind, yolo):
    content, reason = BAD_YAML[kind]
    write(yolo / "data.yaml", content)
    with pytest.raises(DataError) as caught:
        read_data(f"{yolo}:train")
    assert str(caught.value).startswith(f"{yolo / 'data.yaml'}: ")
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        "path: .\ntrain: images/train\nnames: {0: cat, 1: dog}",
        "path: /datasets/pets\ntrain: images/train\nnames: [cat, dog]",
        "train: ../images/train\nval: ../images/val\nnc: 2\nnames: [cat, dog]",  # as an exporter writes it
        "train: [images/train]\nnames: [cat, dog]",
        "train: list.txt\nnames: [cat, dog]",
    ],
)
def test_ways_to_name_the_images(content, yolo):
    write(yolo / "list.txt", "images/train/a.jpg\n")
    write(yolo / "data.yaml", content)
    assert [record.file_name for record in read_data(f"{yolo}:train").records] == ["images/train/a.jpg"]


def test_yolo_list_that_leads_out_is_refused(yolo):
    write(yolo / "list.txt", "../secret.jpg\n")
    write(yolo / "data.yaml", "train: list.txt\nnames: [cat, dog]")
    with pytest.raises(DataError, match=r"'\.\./secret\.jpg' leads out"):
        read_data(f"{yolo}:train")


def test_paths_of_no_known_format_say_what_is_expected(tmp_path, yolo):
    with pytest.raises(DataError, match="no such file or folder"):
        read_data(tmp_path / "nothing")
    with pytest.raises(DataError, match="expected a COCO"):
        read_data(write(tmp_path / "notes.md", "x"))
    (yolo / "data.yaml").unlink()
    with pytest.raises(DataError, match=r"YOLO labels without .*data\.yaml: write one with the classes' names"):
        read_data(yolo)


def test_classes_are_chosen_renamed_and_merged(voc, yolo):
    data = read_data(f"{yolo}:train")
    assert selected(data, ["dog"]).records[0].labels == (0,)
    assert selected(data, ["dog", "cat"]).records[0].labels == (0, 1)
    pets = selected(data, rename={"cat": "pet", "dog": "pet"})
    assert (pets.classes, pets.records[0].labels) == (("pet",), (0, 0))
    with pytest.raises(DataError, match="there is no class 'cow'"):
        selected(data, rename={"cow": "pet"})
    rare = selected(data, ["cat", "cow"], some=True)
    assert (rare.classes, rare.records[0].labels) == (("cat", "cow"), (0,))
    assert len(set(rare.category_ids)) == 2


def test_several_data_sets_are_one(voc, yolo):
    both = joined([read_data(f"{yolo}:train"), selected(read_data(voc), rename={"dog": "cow"})])
    assert both.classes == ("cat", "dog", "cow")
    assert [record.image_id for record in both.records] == [1, 2, 3, 4]
    assert both.records[0].labels == (1, 0)
    assert both.records[1].labels == (0, 2)


def test_a_folder_of_several_formats_is_the_more_special_one(voc, yolo, tmp_path):
    """A .json beside VOC's or YOLO's folders does not make them COCO, nor do labels alone make COCO YOLO."""
    for root, name in ((voc, "voc"), (yolo, "yolo")):
        write(root / "results.json", "[]")
        assert find_data(root).format is FORMATS[name]
    (yolo / "data.yaml").unlink()
    assert find_data(yolo).format is FORMATS["coco"]


def test_a_folder_of_images_is_of_coco_alone(voc, yolo, tmp_path):
    for root in (voc, yolo):
        with pytest.raises(
            ConfigError, match=r"images_dir is for COCO: .* is (Pascal VOC|YOLO), which names its images"
        ):
            read_data(root, images_dir=tmp_path)


def test_pixels_of_a_yolo_image_are_limited_where_its_size_is_read(yolo):
    assert read_data(f"{yolo}:train", max_pixels=60 * 40).problems == ()
    with pytest.raises(DataError, match=r"a\.jpg: image: 60 x 40 is more than 2,399 pixels"):
        read_data(f"{yolo}:train", max_pixels=60 * 40 - 1)


def coco(root: Path, segmentation) -> Path:
    picture(root / "train" / "a.jpg")
    image = {"id": 1, "file_name": "a.jpg", "width": 60, "height": 40}
    entry = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 10, 20, 30], "segmentation": segmentation}
    content = {"images": [image], "annotations": [entry], "categories": [{"id": 1, "name": "cat"}]}
    return write(root / "train.json", json.dumps(content))


OUTLINES = [
    ([[0, 10, 20, 10, 20.5, 40]], Polygons(((0, 10, 20, 10, 20.5, 40),))),
    ({"size": [40, 60], "counts": [10, 30, 2360]}, RunLengths((40, 60), (10, 30, 2360))),
    ({"size": [40, 60], "counts": "PPYo1"}, RunLengths((40, 60), "PPYo1")),
    ([], None),
    (None, None),
]


@pytest.mark.parametrize(("segmentation", "outline"), OUTLINES)
def test_coco_outlines_are_kept_as_they_are_written(segmentation, outline, tmp_path):
    data = read_data(coco(tmp_path, segmentation))
    (only,) = data.records[0].objects
    assert (only.outline, only.area, only.bbox, only.box_xyxy) == (outline, 600, (0, 10, 20, 30), (0, 10, 20, 40))
    assert as_coco(data)["annotations"][0].get("segmentation") == (segmentation or None)


BAD_RUN_LENGTHS = {
    "another size": ({"size": [60, 40], "counts": [2400]}, "run lengths of the image's size [height, width] [40, 60]"),
    "size as text": ({"size": "40x60", "counts": [2400]}, "got size '40x60'"),
    "negative": ({"size": [40, 60], "counts": [2401, -1]}, "expected run lengths with counts as a string or numbers"),
    "fractions": ({"size": [40, 60], "counts": [2399.5, 0.5]}, "got [2399.5, 0.5]"),
    "no string": ({"size": [40, 60], "counts": ""}, "got ''"),
    "too few": ({"size": [40, 60], "counts": [10, 30]}, "run lengths count 40 pixels, their image has 2400"),
    "no counts": ({"size": [40, 60]}, "expected segmentation as polygons or run lengths"),
}


@pytest.mark.parametrize("kind", BAD_RUN_LENGTHS)
def test_bad_run_lengths_are_named(kind, tmp_path):
    segmentation, reason = BAD_RUN_LENGTHS[kind]
    (problem,) = read_data(coco(tmp_path, segmentation)).problems
    assert problem.record == "annotation 1"
    assert reason in problem.reason


def test_the_table_of_formats_imports_nothing_heavy():
    """Help texts are made of it."""
    code = "import sys, fpnkit.data.formats; print(*{'torch', 'numpy', 'PIL', 'yaml'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []


def test_a_format_is_a_row_of_the_table(tmp_path, monkeypatch):
    """Another format, of boxes in a CSV, is found, read, checked and written like the others."""

    def read(root: Path, split: str | None, options: ReadOptions) -> list[Source]:
        places = Places()
        source = Source(root, options.images_dir or root.parent, places, categories=[{"id": 1, "name": "cat"}])
        places.add("category", root, "class cat")
        for number, line in enumerate(root.read_text().split(), start=1):
            name, *box = line.split(",")
            places.add("image", root, f"line {number}")
            places.add("annotation", root, f"line {number}")
            source.images.append({"id": number, "file_name": name, "width": 60, "height": 40})
            bbox = list(map(float, box))
            source.annotations.append({"id": number, "image_id": number, "category_id": 1, "bbox": bbox})
        return [source]

    def write_csv(splits, out: Path, on_image) -> int:
        for split, dataset in splits.items():
            rows = (f"{each.file_name},{','.join(map(str, each.objects[0].bbox))}\n" for each in dataset.records)
            (out / f"{split}.csv").write_text("".join(rows))
        return 0

    row = DataFormat(
        name="csv",
        title="CSV",
        description="a .csv of boxes",
        writes="SPLIT.csv",
        images_apart=True,
        sniff=lambda path: (path, None) if path.suffix == ".csv" else None,
        splits=lambda root: (),
        read=read,
        write=write_csv,
    )
    monkeypatch.setitem(FORMATS, "csv", row)
    picture(tmp_path / "a.jpg")
    picture(tmp_path / "b.jpg")
    data = read_data(write(tmp_path / "boxes.csv", "a.jpg,0,10,20,30\nb.jpg,50,0,90,9\n"))
    assert data.records[0].boxes_xyxy == ((0, 10, 20, 40),)
    (problem,) = data.problems
    assert str(problem).startswith(f"{tmp_path / 'boxes.csv'}: line 2: bbox")
    convert({"train": selected(data)}, "coco", tmp_path / "coco")
    assert read_data(tmp_path / "coco").records[0].boxes_xyxy == data.records[0].boxes_xyxy
    convert({"train": read_data(coco(tmp_path / "other", None))}, "csv", tmp_path / "csv")
    assert (tmp_path / "csv" / "train.csv").read_text() == "a.jpg,0,10,20,30\n"
    with pytest.raises(DataError, match=r"expected a COCO .*, a \.csv of boxes, a VOC folder .* or a YOLO data\.yaml"):
        read_data(write(tmp_path / "notes.md", "x"))
