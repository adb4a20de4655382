"""A weights file that is not what it should be is refused in one line, and nothing in it is ever run."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from fpnkit.errors import CheckpointError
from fpnkit.weights.backbone import read_state_dict


class Malicious:
    """Unpickled, it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return open, (str(self.marker), "w")


@pytest.fixture(params=["pickle", "torch", "state_dict"])
def malicious(request, tmp_path):
    """Files that run code when read by `pickle`, and the marker that shows whether it ran."""
    marker = tmp_path / "executed"
    path = tmp_path / "malicious.pth"
    if request.param == "pickle":
        path.write_bytes(pickle.dumps(Malicious(marker)))
    else:
        bad = Malicious(marker)
        torch.save({"state_dict": {"weight": bad}, "recipe": bad} if request.param == "state_dict" else bad, path)
    yield path
    assert not marker.exists()


def test_the_malicious_files_do_run_code_where_they_may(tmp_path):
    marker = tmp_path / "executed"
    pickle.loads(pickle.dumps(Malicious(marker))).close()
    assert marker.exists()
    marker.unlink()
    torch.save({"weight": Malicious(marker)}, tmp_path / "file.pth")
    torch.load(tmp_path / "file.pth", weights_only=False)["weight"].close()
    assert marker.exists()


def test_malicious_model_is_not_run(malicious, cli, photo, tmp_path):
    renamed = malicious.rename(malicious.with_suffix(".safetensors"))
    cli("predict", photo, "--model", renamed, "--out", tmp_path / "out").refuses(3, renamed, "not a safetensors file")


def training(coco, out, *options) -> tuple:
    data = ("--data", coco.json, "--images", coco.images, "--val", coco.json, "--val-images", coco.images)
    cheap = ("--model", "faster_rcnn_lite0_fpn", "--epochs", 1, "--batch-size", 2, "--crop", 32, "--device", "cpu")
    return ("train", *data, "--out", out, *cheap, *options)


def test_malicious_backbone_weights_are_not_run(malicious, cli, coco, tmp_path):
    outcome = cli(*training(coco, tmp_path / "run", "--from", malicious))
    outcome.refuses(3, malicious, "objects that would run code when loaded")


def test_malicious_training_state_is_not_run(malicious, cli, coco, tmp_path):
    state = tmp_path / "run" / "state" / "last.pt"
    state.parent.mkdir(parents=True)
    malicious.rename(state)
    cli(*training(coco, tmp_path / "run", "--resume")).refuses(3, state, "objects that would run code when loaded")
    assert not (tmp_path / "run" / "config.json").exists()


DAMAGE = {
    "empty": lambda content: b"",
    "cut off": lambda content: content[:-1000],
    "cut off in the header": lambda content: content[:100],
    "zeros": lambda content: bytes(4096),
    "random": lambda content: bytes(torch.randint(0, 256, (4096,), generator=torch.Generator().manual_seed(0))),
    "flipped length of the header": lambda content: bytes([content[0] ^ 0x10]) + content[1:],
    "flipped letter of the header": lambda content: content[:8] + b"[" + content[9:],
    "endless header": lambda content: b"\xff" * 8 + content[8:],
    "a text": lambda content: b"dear diary\n" * 100,
    "longer than its header says": lambda content: content + b"more",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_file_is_refused(damage, cli, photo, weights, tmp_path):
    path = tmp_path / "damaged.safetensors"
    path.write_bytes(DAMAGE[damage](weights.read_bytes()))
    reason = "the file is empty" if damage == "empty" else "not a safetensors file, or damaged"
    cli("predict", photo, "--model", path, "--out", tmp_path / "out").refuses(3, path, reason)
    if damage == "longer than its header says":
        return
    with pytest.raises(CheckpointError, match=str(path)):
        read_state_dict(path)


def test_missing_model_is_refused(cli, photo, tmp_path):
    out = ("--out", tmp_path / "out")
    cli("predict", photo, "--model", "gone.safetensors", *out).refuses(3, "gone.safetensors: no such model, run folder")
    cli("predict", photo, "--model", "defualt", *out).refuses(3, "defualt: no such", "did you mean default?")
    cli("predict", photo, "--model", tmp_path, *out).refuses(3, tmp_path, "holds no weights/best.safetensors")


def test_missing_backbone_weights_are_refused(cli, coco, tmp_path):
    for given, reason in {
        "gone.pth": "no such weights, run folder or file; without a file they are random, timm, coco80, default",
        "cocoo80": "no such weights, run folder or file; did you mean coco80?",
        coco.folder: "the folder holds no weights/best.safetensors: is it a training run or an export?",
    }.items():
        cli(*training(coco, tmp_path / "run", "--from", given)).refuses(3, f"{given}: {reason}")


@pytest.fixture
def changed(weights, tmp_path):
    """The weights file with its tensors or its description changed."""

    def write(change_tensors=lambda tensors: None, change_card=lambda card: None, text=None) -> Path:
        with safe_open(weights, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            card = json.loads(file.metadata()["fpnkit"])
        change_tensors(tensors)
        change_card(card)
        path = tmp_path / "changed.safetensors"
        save_file(tensors, path, metadata={"fpnkit": json.dumps(card) if text is None else text})
        return path

    return write


def of_format_1(card: dict) -> None:
    """Make it what fpnkit 0.3 wrote."""
    preprocess = card.pop("spec")["preprocess"]
    card.update(format=1, model="faster_rcnn_lite0_fpn", preprocess=preprocess)


def unknown_preset(card: dict) -> None:
    of_format_1(card)
    card.update(model="faster_rcnn_lite")


def another_preset(card: dict) -> None:
    of_format_1(card)
    card.update(model="faster_rcnn_r50_fpn")


PREPROCESS = {"short_side": 64, "long_side": 64, "mean": [0.5] * 3, "std": [0.5] * 3}
BAD_CARDS = {
    "another model": (lambda card: card["spec"]["backbone"].update(name="resnet10t"), "not the weights of this model"),
    "another width": (lambda card: card["spec"]["pyramid"].update(channels=32), "the model expects (32,"),
    "another preset": (another_preset, "not the weights of this model"),
    "unknown preset": (unknown_preset, "did you mean faster_rcnn_lite0_fpn?"),
    "unknown backbone": (lambda card: card["spec"]["backbone"].update(name="resnet51"), "no model named 'resnet51'"),
    "unknown pyramid": (lambda card: card["spec"]["pyramid"].update(name="fnp"), "did you mean fpn?"),
    "unknown option": (lambda card: card["spec"]["pyramid"].update(repeats=3), "no field 'pyramid.repeats'"),
    "more classes": (lambda card: card.update(classes=["person", "dog"]), "another number of classes"),
    "no classes": (lambda card: card.update(classes=[]), "class"),
    "the same class twice": (lambda card: card.update(classes=["dog", "dog"]), "each named once"),
    "classes as text": (lambda card: card.update(classes="person"), "description of the model is damaged"),
    "classes as number": (lambda card: card.update(classes=1), "description of the model is damaged"),
    "no spec": (lambda card: card.pop("spec"), "description of the model is damaged"),
    "spec as list": (lambda card: card.update(spec=[1]), "description of the model is damaged"),
    "no heads": (lambda card: card["spec"].update(rpn=None, roi=None), "description of the model is damaged"),
    "an RPN alone": (lambda card: card["spec"].update(roi=None), "a detector expects both rpn and roi"),
    "no format": (lambda card: card.pop("format"), "description of the model is damaged"),
    "text for a number": (lambda card: card["spec"]["preprocess"].update(short_side="x"), "is damaged"),
    "not finite": (lambda card: card["spec"]["preprocess"].update(mean=[float("nan")] * 3), "is damaged"),
    "unknown setting": (lambda card: card["spec"]["preprocess"].update(colour="BGR"), "is damaged"),
    "future format": (lambda card: card.update(format=99), "written in format 99, this fpnkit reads 1 and 2"),
    "of your own": (lambda card: card.update(spec=None, preprocess=PREPROCESS, name="Mine"), "weights of Mine, a det"),
}


@pytest.mark.parametrize("kind", BAD_CARDS)
def test_bad_description_is_refused(kind, changed, cli, photo, tmp_path):
    change, reason = BAD_CARDS[kind]
    path = changed(change_card=change)
    code = 2 if kind == "of your own" else 3
    cli("predict", photo, "--model", path, "--out", tmp_path / "out").refuses(code, path, reason)


def test_descriptions_of_format_1_are_read(changed, cli, photo, tmp_path):
    path = changed(change_card=of_format_1)
    assert cli("predict", photo, "--model", path, "--out", tmp_path / "out").code == 0


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000])
def test_description_that_is_no_json_object_is_refused(text, changed, cli, photo, tmp_path):
    path = changed(text=text)
    outcome = cli("predict", photo, "--model", path, "--out", tmp_path / "out")
    outcome.refuses(3, path, "description of the model is damaged")


def test_safetensors_of_others_are_refused(cli, photo, tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(1)}, path)
    cli("predict", photo, "--model", path, "--out", tmp_path / "out").refuses(3, path, "not one of fpnkit")


def set_value(name: str, value: float):
    def change(tensors: dict) -> None:
        tensors[name].view(-1)[0] = value

    return change


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(value, changed, cli, photo, tmp_path):
    path = changed(set_value("roi.fc1.weight", value))
    outcome = cli("predict", photo, "--model", path, "--out", tmp_path / "out")
    outcome.refuses(3, path, "roi.fc1.weight holds values that are not finite")
    with pytest.raises(CheckpointError, match=r"roi\.fc1\.weight holds values that are not finite"):
        read_state_dict(path)


def test_missing_and_surplus_tensors_are_named(changed, cli, photo, tmp_path):
    out = ("--out", tmp_path / "out")
    path = changed(lambda tensors: tensors.pop("roi.fc1.bias"))
    cli("predict", photo, "--model", path, *out).refuses(3, path, "it lacks roi.fc1.bias (1 missing, 0 too many)")
    path = changed(lambda tensors: tensors.update(stranger=torch.zeros(1)))
    cli("predict", photo, "--model", path, *out).refuses(3, path, "it has stranger besides")


def test_backbone_weights_of_another_network_are_refused(cli, coco, tmp_path):
    path = tmp_path / "other.pth"
    torch.save({"conv.weight": torch.zeros(3, 3)}, path)
    outcome = cli(*training(coco, tmp_path / "run", "--from", path))
    outcome.refuses(3, path, "backbone weights do not fit")


@pytest.mark.parametrize("content", [[1, 2], {"weight": "text"}, torch.zeros(2), {"state_dict": 5}, None])
def test_backbone_weights_that_are_no_state_dict_are_refused(content, cli, coco, tmp_path):
    path = tmp_path / "odd.pth"
    torch.save(content, path)
    outcome = cli(*training(coco, tmp_path / "run", "--from", path))
    outcome.refuses(3, path, "expected a state dict of tensors")


@pytest.mark.parametrize("kind", ["random", "zeros", "empty", "cut off"])
def test_damaged_training_state_is_refused(kind, cli, coco, tmp_path):
    state = tmp_path / "run" / "state" / "last.pt"
    state.parent.mkdir(parents=True)
    torch.save({"recipe": {}, "detector": {"weight": torch.zeros(9999)}}, state)
    state.write_bytes(DAMAGE[kind](state.read_bytes()))
    cli(*training(coco, tmp_path / "run", "--resume")).refuses(3, state)


@pytest.mark.parametrize("content", [[], {}, 5, {"recipe": 5}, {"recipe": {"model": "other"}}])
def test_training_state_of_another_shape_is_refused(content, cli, coco, tmp_path):
    state = tmp_path / "run" / "state" / "last.pt"
    state.parent.mkdir(parents=True)
    torch.save(content, state)
    cli(*training(coco, tmp_path / "run", "--resume")).refuses(3, state)
