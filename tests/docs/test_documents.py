"""The code in README and docs runs, the commands in them parse, and the names and files that they mention exist."""

import argparse
import importlib
import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
from PIL import Image

from fpnkit.cli.main import make_parser
from fpnkit.data.samples import FOLDER
from fpnkit.graph.write import write_graph
from fpnkit.inference.weights_engine import describe
from fpnkit.settings import fields_of
from fpnkit.training.recipe import TrainConfig
from fpnkit.weights import load_weights
from fpnkit.zoo.shipped import shipped_weights

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "src/fpnkit/zoo/weights/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
SMALL_TRAINING = 'steps=2, batch_size=2, crop=128, workers=0, model="faster_rcnn_lite0_fpn", weights="random"'
"""What the test of a document runs where that says `minutes=20`."""

WRITTEN = ("annotations/instances_val2017.json", "docs/benchmarks/training.json")
"""Files that a document names and a command writes."""

MINUTES = ("python.md",)
"""Documents whose code takes minutes: they train and export."""


def blocks(path: Path, language: str) -> str:
    """All fenced blocks of a language, in order: later ones may use the names of earlier ones."""
    return "\n".join(re.findall(rf"^```{language}\n(.*?)^```", path.read_text(), flags=re.M | re.S))


def inline_only(path: Path) -> str:
    """A document without its fenced blocks."""
    return re.sub(r"^```.*?^```", "", path.read_text(), flags=re.M | re.S)


def all_options() -> set[str]:
    """Of every verb."""
    verbs = next(each for each in make_parser()._actions if isinstance(each, argparse._SubParsersAction)).choices
    return {option for verb in verbs.values() for action in verb._actions for option in action.option_strings}


OPTIONS = all_options()


def documents_with_code() -> list:
    """Each document with Python code, marked as slow where it is."""
    return [
        pytest.param(path, id=path.stem, marks=[pytest.mark.slow] if path.name in MINUTES else [])
        for path in DOCUMENTS
        if blocks(path, "python")
    ]


def make_cells(folder: Path) -> None:
    """A COCO data set of two splits that are the sample photographs."""
    for split in ("train", "val"):
        images, annotations = [], []
        for number, path in enumerate(sorted(FOLDER.glob("*.jpg")), start=1):
            (folder / split).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, folder / split / path.name)
            width, height = Image.open(path).size
            box = [width / 4, height / 4, width / 2, height / 2]
            images.append({"id": number, "file_name": path.name, "width": width, "height": height})
            annotations.append({"id": number, "image_id": number, "category_id": 1, "bbox": box, "iscrowd": 0})
        content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "person"}]}
        (folder / f"{split}.json").write_text(json.dumps(content))


def write_person_whole(folder: Path) -> None:
    """What `fpnkit export default --resize` writes, without its comparison, which others test."""
    detector, card = load_weights(shipped_weights("default"))
    settings = {"format": "onnx", "precision": "float32", "pixels": True, "resizes": True, "size_hw": None}
    folder.mkdir()
    write_graph(folder, detector, describe(card, detector, **settings))


@pytest.mark.parametrize("path", documents_with_code())
def test_python_blocks_run(path, tmp_path, monkeypatch):
    code = blocks(path, "python")
    for name in ("street.jpg", "photo.jpg"):
        shutil.copy(FOLDER / "astronaut.jpg", tmp_path / name)
    monkeypatch.chdir(tmp_path)
    if "person-whole" in code:
        write_person_whole(tmp_path / "person-whole")
    if "cells" in code:
        make_cells(tmp_path / "cells")
    exec(compile(code.replace("minutes=20", SMALL_TRAINING), str(path), "exec"), {})


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_parse(path):
    parser = make_parser()
    text = blocks(path, "").replace("\\\n", " ")
    for line in re.findall(r"^(?:\$ )?fpnkit ([^#\n]*)", text, flags=re.M):
        words = shlex.split(line)
        if words[-1] not in ("--help", "--version"):
            parser.parse_args(words)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#]+)", path.read_text()):
        assert "://" in target or (path.parent / target).exists(), target


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_of_the_repository_exist(path):
    for name in set(re.findall(r"`((?:\w+/)+\w+\.(?:py|json|md))\b", path.read_text())):
        assert name in WRITTEN or any((root / name).exists() for root in (ROOT, ROOT / "src" / "fpnkit")), name


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_options_exist(path):
    if path.name == "CHANGELOG.md":
        pytest.skip("tells of options that are gone")
    text = re.sub(r"`(?:python|torchrun|make) [^`]*`", "", inline_only(path))
    for option in set(re.findall(r"`[^`]*?(--[a-z][\w-]*)", text)) - {"--options", "--option"}:
        assert option in OPTIONS, option


def test_the_recipe_is_listed_whole():
    section = (ROOT / "docs" / "train.md").read_text().split("## The recipe")[1].split("## ")[0]
    listed = re.findall(r"`([\w.]+)`", "\n".join(row.split("|")[1] for row in section.splitlines() if row[:1] == "|"))
    assert sorted(listed) == sorted(fields_of(TrainConfig()))


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_names_of_fpnkit_exist(path):
    if path.name == "CHANGELOG.md":
        pytest.skip("tells of names that are gone")
    for name in set(re.findall(r"`(fpnkit(?:\.\w+)+)", inline_only(path))):
        if name not in ("fpnkit.json",):
            assert exists(name), name


@pytest.mark.parametrize(
    ("name", "there"),
    [
        ("fpnkit.load", True),
        ("fpnkit.heads.RPNConfig.ratios", True),
        ("fpnkit.loaded", False),
        ("fpnkit.no.way", False),
    ],
)
def test_whether_a_name_exists_is_told(name, there):
    assert exists(name) == there


def exists(name: str) -> bool:
    """Whether a dotted name can be imported, or is an attribute or a field of what can."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            value = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        return _has(value, parts[end:])
    return False


def _has(value: object, names: list[str]) -> bool:
    if not names:
        return True
    first, *rest = names
    if hasattr(value, first):
        return _has(getattr(value, first), rest)
    return not rest and first in getattr(value, "__annotations__", {})
