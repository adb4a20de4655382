"""Small data sets, weights and a command line for the end-to-end tests."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from fpnkit import zoo
from fpnkit.cli import main
from fpnkit.inference import predictor as predict
from fpnkit.weights.checkpoint import ModelCard, save_weights

LITE = "faster_rcnn_lite0_fpn"


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str

    def refuses(self, code: int, *mentions: object) -> None:
        """Assert one line of error, this exit code, and that the line holds these words."""
        assert self.code == code, self.err or self.out
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("fpnkit: error: ")
        assert "Traceback" not in lines[0]
        for mention in mentions:
            assert str(mention) in lines[0]


@pytest.fixture
def cli(capsys) -> Callable[..., Outcome]:
    """The command line in this process: words -> outcome."""

    def run(*words: object) -> Outcome:
        capsys.readouterr()
        try:
            code = main([str(word) for word in words])
        except SystemExit as exit_:
            code = int(exit_.code or 0)
        return Outcome(code, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def start() -> Callable[..., subprocess.Popen]:
    """The command line as a process of its own, leader of its own process group."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def run(*words: object) -> subprocess.Popen:
        command = [sys.executable, "-m", "fpnkit", *map(str, words)]
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(command, env=environment, text=True, start_new_session=True, **streams)

    return run


@pytest.fixture(scope="session")
def weights(tmp_path_factory) -> Path:
    """An untrained small detector of one class, `person`."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "untrained.safetensors"
    card = ModelCard.of_spec(zoo.preset(LITE), ("person",))
    save_weights(path, zoo.build(LITE, 1), card)
    return path


@pytest.fixture(scope="session")
def untrained(weights) -> predict.Predictor:
    """The detector of `weights`, loaded once."""
    return predict.load(weights, device="cpu")


@pytest.fixture
def loaded(monkeypatch, untrained) -> predict.Predictor:
    """Every command gets the untrained detector, whatever --model says."""
    monkeypatch.setattr(predict, "load", lambda *given, **named: untrained)
    return untrained


@dataclass(frozen=True)
class Coco:
    """A data set on disk: `content` is the JSON, to be changed and written again."""

    folder: Path
    content: dict

    @property
    def json(self) -> Path:
        return self.folder / "annotations.json"

    @property
    def images(self) -> Path:
        return self.folder / "images"

    def write(self) -> "Coco":
        self.json.write_text(json.dumps(self.content))
        return self


def draw_shapes(folder: Path, count: int, *, side: int = 96, seed: int = 0) -> Coco:
    """Images with one red square and one blue disc on noise, as COCO."""
    random = np.random.default_rng(seed)
    images, annotations = [], []
    (folder / "images").mkdir(parents=True)
    for number in range(1, count + 1):
        picture = Image.fromarray(random.integers(90, 160, (side, side, 3), dtype=np.uint8))
        draw = ImageDraw.Draw(picture)
        for label, (left, right) in enumerate(((0, side // 2), (side // 2, side)), start=1):
            size = int(random.integers(24, 40))
            x, y = int(random.integers(left, right - size)), int(random.integers(0, side - size))
            corners = (x, y, x + size - 1, y + size - 1)
            draw.rectangle(corners, fill="#d02020") if label == 1 else draw.ellipse(corners, fill="#2040e0")
            box = [x, y, size, size]
            entry = {"image_id": number, "category_id": label, "bbox": box, "area": size * size, "iscrowd": 0}
            annotations.append({"id": len(annotations) + 1, **entry})
        picture.save(folder / "images" / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": side, "height": side})
    categories = [{"id": 1, "name": "square"}, {"id": 2, "name": "disc"}]
    return Coco(folder, {"images": images, "annotations": annotations, "categories": categories}).write()


@pytest.fixture
def coco(tmp_path) -> Coco:
    """Two images of shapes, for a test to spoil."""
    return draw_shapes(tmp_path / "coco", 2)


@pytest.fixture(scope="session")
def shapes(tmp_path_factory) -> tuple[Coco, Coco]:
    """Twelve training and two validation images of shapes; not to be changed."""
    folder = tmp_path_factory.mktemp("shapes")
    return draw_shapes(folder / "train", 12), draw_shapes(folder / "val", 2, seed=1)


@pytest.fixture
def photo(tmp_path) -> Path:
    """A picture that can be read."""
    path = tmp_path / "photo.jpg"
    Image.linear_gradient("L").resize((64, 48)).convert("RGB").save(path)
    return path


@pytest.fixture(scope="session")
def read_json() -> Callable[[Path], object]:
    """A JSON file's content, read strictly: NaN and Infinity are not JSON."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return lambda path: json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


@pytest.fixture(scope="session")
def training(shapes) -> Callable[..., tuple]:
    """The words of a short training on the shapes: six steps in two epochs."""
    train, val = shapes
    data = ("--data", train.json, "--images", train.images, "--val", val.json, "--val-images", val.images)
    recipe = ("--model", LITE, "--epochs", 2, "--batch-size", 4, "--crop", 96, "--lr", 2e-3, "--warmup-steps", 2)
    machine = ("--device", "cpu", "--precision", "float32", "--workers", 0)
    return lambda out, *more: ("train", *data, *recipe, *machine, "--out", out, *more)
