"""Settings out of range, folders that cannot be written to, help and debugging."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fpnkit.cli.main import VERBS, main

MODULES = [verb.__name__.rsplit(".", 1)[-1] for verb in VERBS]
NAMES = ["import" if name == "import_weights" else name.replace("_", "-") for name in MODULES]

BAD_TRAINING = {
    ("--epochs", 0): "epochs must be 1 or more, got 0",
    ("--batch-size", 0): "batch_size must be 1 or more, got 0",
    ("--evaluate-every", 0): "evaluate_every must be 1 or more, got 0",
    ("--lr", -1): "lr must be above 0, got -1.0",
    ("--lr", 0): "lr must be above 0",
    ("--lr", "nan"): "lr must be above 0, got nan",
    ("--lr", "inf"): "lr must be above 0, got inf",
    ("--backbone-lr-factor", -1): "backbone_lr_factor must be 0 or more",
    ("--backbone-lr-factor", "nan"): "backbone_lr_factor must be 0 or more",
    ("--warmup-steps", -1): "warmup_steps must be 0 or more",
    ("--workers", -1): "workers must be 0 or more",
    ("--crop", 0): "crop must be 1 or more, got 0",
    ("--scale", 2, 1): "scale must be two factors above 0, the smaller one first, got 2.0 1.0",
    ("--scale", 0, 1): "scale must be two factors above 0",
    ("--scale", "nan", 1): "scale must be two factors above 0",
    ("--seed", -1): "seed must lie in 0..2**32 - 1",
    ("--seed", 10**30): "seed must lie in 0..2**32 - 1",
    ("--model", "faster_rcnn_lite_fpn"): "did you mean faster_rcnn_lite0_fpn?",
    ("--model", "x"): "the models are faster_rcnn_r50_fpn, faster_rcnn_lite0_fpn",
    ("--device", "toaster"): "device 'toaster' cannot be used here",
}


@pytest.mark.parametrize("options", BAD_TRAINING, ids=lambda options: " ".join(map(str, options)))
def test_training_refuses_numbers_out_of_range(options, cli, training, tmp_path):
    cli(*training(tmp_path / "run", *options)).refuses(2, BAD_TRAINING[options])
    assert not (tmp_path / "run" / "config.json").exists()


@pytest.mark.parametrize("score", ["2", "-0.1", "nan"])
def test_prediction_refuses_scores_out_of_range(score, cli, photo, tmp_path):
    cli("predict", photo, "--min-score", score, "--out", tmp_path).refuses(2, "--min-score must lie in 0..1")


@pytest.mark.parametrize("options", [("--batch-size", 0), ("--workers", -1)])
def test_evaluation_refuses_numbers_out_of_range(options, cli, coco, tmp_path):
    words = ("evaluate", "default", "--data", coco.json, "--images", coco.images, "--out", tmp_path / "out")
    cli(*words, *options).refuses(2, "--batch-size must be 1 or more, --workers 0 or more")


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("paint",),
        ("predict",),
        ("predict", "photo.jpg", "--format", "xml"),
        ("predict", "photo.jpg", "--min-score", "high"),
        ("predict", "photo.jpg", "--colour", "red"),
        ("train", "--epochs", "2.5"),
        ("evaluate", "default"),
    ],
    ids=" ".join,
)
def test_words_that_do_not_parse_are_wrong_usage(words, cli):
    outcome = cli(*words)
    assert outcome.code == 2
    assert "Traceback" not in outcome.err
    assert ": error: " in outcome.err.splitlines()[-1]


@pytest.fixture
def verbs(photo, coco, training):
    """A call of each verb that writes, by its --out."""
    data = ("--data", coco.json, "--images", coco.images)
    return lambda out: [
        ("predict", photo, "--out", out),
        ("evaluate", "default", *data, "--out", out),
        training(out),
        ("demo", "--out", out),
        ("levels", photo, "--out", out),
        ("study", "table1", *data, "--val", coco.json, "--val-images", coco.images, "--out", out),
    ]


def test_out_that_is_a_file_is_refused(cli, verbs, tmp_path):
    file = tmp_path / "file"
    file.write_text("mine")
    for out in (file, file / "below"):
        for words in verbs(out):
            cli(*words).refuses(2, f"--out {out}: not a folder that can be written to")
    assert file.read_text() == "mine"


@pytest.fixture(params=["permissions", "system"])
def read_only(request, tmp_path):
    """A folder in which nothing can be made."""
    if request.param == "permissions":
        if os.geteuid() == 0:
            pytest.skip("root may write everywhere")
        tmp_path.chmod(0o555)
        yield tmp_path
        tmp_path.chmod(0o755)
    else:
        if not Path("/sys/kernel").is_dir():
            pytest.skip("a system without /sys")
        yield Path("/sys/kernel")


def test_out_in_a_read_only_place_is_refused(cli, tmp_path_factory, read_only):
    photo = tmp_path_factory.mktemp("photo") / "a.jpg"
    for out in (read_only, read_only / "below"):
        cli("predict", photo, "--out", out).refuses(2, f"--out {out}: not a folder that can be written to")
        cli("demo", "--out", out).refuses(2, f"--out {out}: not a folder that can be written to")


def test_a_bug_is_one_line_and_debug_shows_where(cli, photo, tmp_path, monkeypatch):
    monkeypatch.setattr("fpnkit.inference.predictor.load", lambda *given, **named: 1 / 0)
    words = ("predict", photo, "--out", tmp_path / "out")
    cli(*words).refuses(1, "ZeroDivisionError: division by zero (--debug shows where)")
    shown = cli(*words, "--debug")
    assert shown.code == 1
    assert "Traceback" in shown.err
    assert "ZeroDivisionError" in shown.err.splitlines()[-1]


def test_debug_shows_the_traceback_of_refused_input(cli, tmp_path):
    words = ("predict", tmp_path / "no.jpg", "--out", tmp_path / "out")
    shown = cli(*words, "--debug")
    assert shown.code == 3
    assert "Traceback" in shown.err
    assert "no such image file" in shown.err.splitlines()[-1]


def test_interruption_is_one_line(cli, photo, tmp_path, monkeypatch):
    def interrupt(*given, **named):
        raise KeyboardInterrupt

    monkeypatch.setattr("fpnkit.inference.predictor.load", interrupt)
    cli("predict", photo, "--out", tmp_path / "out").refuses(1, "interrupted")


HELP = """
import sys
from fpnkit.cli import main
try:
    main(sys.argv[1:])
except SystemExit as ended:
    heavy = {"torch", "torchvision", "timm", "numpy", "PIL", "matplotlib", "faster_coco_eval"} & set(sys.modules)
    sys.exit(f"imported {heavy}" if heavy else ended.code)
"""


@pytest.mark.parametrize("words", [("--help",), ("--version",), *((name, "--help") for name in NAMES)], ids=" ".join)
def test_help_imports_nothing_heavy(words):
    ended = subprocess.run([sys.executable, "-c", HELP, *words], capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "fpnkit" in ended.stdout


@pytest.mark.parametrize("name", NAMES)
def test_every_option_is_explained(name, capsys):
    with pytest.raises(SystemExit):
        main([name, "--help"])
    shown = capsys.readouterr().out
    for option in ("--json" if name in ("bench", "doctor") else "--out", "--debug"):
        assert option in shown
