"""Options: each is read, explained, in range, and refused where it cannot apply; help and debugging."""

import argparse
import ast
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType, ModuleType

import pytest

from fpnkit.cli.main import VERBS, make_parser
from fpnkit.cli.wording import in_options, option_names, speaking_of

(PARSERS,) = (action.choices for action in make_parser()._actions if isinstance(action, argparse._SubParsersAction))
"""Verb -> its parser."""

NAMES = list(PARSERS)
MODULES = dict(zip(NAMES, VERBS, strict=True))

BAD_TRAINING = {
    ("--epochs", 0): "--epochs must be 1 or more, got 0",
    ("--batch-size", 0): "--batch-size must be 1 or more, got 0",
    ("--evaluate-every", 0): "--evaluate-every must be 1 or more, got 0",
    ("--lr", -1): "--lr must be above 0, got -1.0",
    ("--lr", 0): "--lr must be above 0",
    ("--lr", "nan"): "--lr must be above 0, got nan",
    ("--lr", "inf"): "--lr must be above 0, got inf",
    ("--backbone-lr-factor", -1): "--backbone-lr-factor must be 0 or more",
    ("--backbone-lr-factor", "nan"): "--backbone-lr-factor must be 0 or more",
    ("--warmup-steps", -1): "--warmup-steps must be 0 or more",
    ("--workers", -1): "--workers must be 0 or more",
    ("--crop", 0): "--crop must be 1 or more, got 0",
    ("--scale", 2, 1): "--scale must be two factors above 0, the smaller one first, got 2.0 1.0",
    ("--scale", 0, 1): "--scale must be two factors above 0",
    ("--scale", "nan", 1): "--scale must be two factors above 0",
    ("--seed", -1): "--seed must lie in 0..2**32 - 1",
    ("--seed", 10**30): "--seed must lie in 0..2**32 - 1",
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


def stored(parser: argparse.ArgumentParser) -> set[str]:
    """Where a parser stores what it is given."""
    return {action.dest for action in parser._actions} - {"help"}


def reads(code: ModuleType | FunctionType, namespace: str = "arguments") -> Iterator[str]:
    """The names that code reads of a namespace: as `arguments.NAME`, by `getattr(arguments, name)` for each name of a
    dictionary that it makes, and in functions of other modules to which it passes the namespace."""
    tree, known = ast.parse(inspect.getsource(code)), vars(code) if isinstance(code, ModuleType) else code.__globals__
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load) and ast.unparse(node.value) == namespace:
            yield node.attr
        if isinstance(node, ast.Call) and namespace in map(ast.unparse, node.args):
            function = known.get(ast.unparse(node.func))
            if isinstance(function, FunctionType) and function.__globals__ is not known:
                yield from reads(function, namespace)
        if isinstance(node, ast.DictComp) and f"getattr({namespace}, " in (value := ast.unparse(node.value)):
            (loop,) = node.generators
            name = value.removeprefix(f"getattr({namespace}, ").removesuffix(")")
            yield from eval(f"[{name} for {ast.unparse(loop.target)} in {ast.unparse(loop.iter)}]", dict(known))


def unread(name: str, parser: argparse.ArgumentParser) -> set[str]:
    """What a parser stores and neither its verb nor the command reads."""
    return stored(parser) - set(reads(MODULES[name])) - set(reads(inspect.getmodule(make_parser), "chosen"))


@pytest.mark.parametrize("name", NAMES)
def test_every_option_is_read_by_its_verb(name):
    assert unread(name, PARSERS[name]) == set()


@pytest.mark.parametrize("name", NAMES)
def test_an_option_that_its_verb_does_not_read_is_found(name):
    parser = argparse.ArgumentParser(parents=[PARSERS[name]], add_help=False)
    parser.add_argument("--colour")
    assert unread(name, parser) == {"colour"}


def options_of(name: str) -> list[argparse.Action]:
    return [action for action in PARSERS[name]._actions if action.dest != "help"]


@pytest.mark.parametrize("name", NAMES)
def test_every_option_is_explained_and_shows_its_default(name):
    formatter = PARSERS[name]._get_formatter()
    for action in options_of(name):
        assert action.help, action.dest
        shown, default = formatter._expand_help(action), action.default
        if action.nargs == 0 or default in (None, []):  # a switch, or nothing
            continue
        value = f"{default[0]:g}" if isinstance(default, tuple) else str(default)
        assert re.search(rf"default: {re.escape(value)}(\)|$)", shown), action.dest


def test_errors_name_the_options_of_the_verb_that_runs():
    with speaking_of(option_names(PARSERS["predict"])):
        for said, shown in {
            "compiled=True is for weights": "--compile is for weights",
            "for detections=3 export": "for --detections 3 export",
            "precision=bf16: no": "--precision bf16: no",
            "a higher max_pixels takes it": "a higher --max-pixels takes it",
            "postprocess.detections must be 1 or more": "--detections must be 1 or more",
            "streams must be 1 or more": "--streams must be 1 or more",
            "max_pixels/a.jpg: streams, compiled, images_dir": "max_pixels/a.jpg: streams, compiled, images_dir",
        }.items():
            assert in_options(said) == shown
    assert in_options("max_pixels") == "max_pixels"


NOT_FOR_GRAPHS = {
    ("--compile",): "--compile is for weights in the engine torch",
    ("--detections", 3): "was exported with --detections 10: for --detections 3 export the weights again",
    ("--engine", "torch"): "--engine torch cannot run this model on cpu: openvino or onnxruntime can",
    ("--engine", "onnxruntime", "--precision", "bf16"): "--precision bf16: onnxruntime runs this graph in float32",
    ("--device", "meta"): "--device meta is for weights",
}


@pytest.mark.parametrize("options", NOT_FOR_GRAPHS, ids=lambda options: " ".join(map(str, options)))
def test_what_an_exported_graph_cannot_apply_is_refused(options, exported, cli, photo, coco, tmp_path):
    reason, out = NOT_FOR_GRAPHS[options], ("--out", tmp_path / "out")
    cli("predict", photo, "--model", exported, *options, *out).refuses(2, reason)
    if options != ("--compile",):
        cli("evaluate", exported, "--data", coco.json, *options, *out).refuses(2, reason)
    if options[0] != "--detections":
        cli("bench", exported, *options).refuses(2, reason)


def test_what_an_engine_cannot_apply_to_weights_is_refused(weights, cli, photo, tmp_path):
    words = ("predict", photo, "--model", weights, "--device", "cpu", "--out", tmp_path / "out")
    cli(*words, "--compile", "--engine", "onnxruntime").refuses(2, "--compile is for the engine torch: onnxruntime")
    cli(*words, "--streams", 2).refuses(2, "--streams 2 is for engines that run a graph")
    cli(*words, "--detections", 0).refuses(2, "--detections must be 1 or more, got 0")
    cli("bench", weights, "--streams", 2).refuses(2, "--streams 2 is for engines that run a graph")
