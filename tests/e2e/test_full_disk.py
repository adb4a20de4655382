"""A write that fails leaves the last good file as it was, byte for byte, and nothing half-written beside it."""

import contextlib
import resource
import signal
import subprocess
import sys

import pytest
import torch

from fpnkit.cli.training_screen import TrainingScreen
from fpnkit.errors import CheckpointError
from fpnkit.files import write_json
from fpnkit.weights import checkpoint
from fpnkit.weights.checkpoint import load_state

LIMITED = """
import resource, sys
from fpnkit.cli import main
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), hard))
sys.exit(main(sys.argv[2:]))
"""


def with_small_disk(limit: int, *words: object) -> subprocess.CompletedProcess:
    """The command in a process in which no file can grow beyond `limit` bytes: writes fail as on a full disk."""
    command = [sys.executable, "-c", LIMITED, str(limit), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=900)


def contents(folder) -> dict:
    return {
        each: each.read_bytes()
        for each in folder.rglob("*")
        if each.is_file() and each.suffix != ".csv" and each.name != "environment.json"
    }


@pytest.fixture
def stopped(tmp_path, cli, training, monkeypatch):
    """A run that was stopped after its first step."""
    run = tmp_path / "run"
    with monkeypatch.context() as patched:
        patched.setattr(TrainingScreen, "on_step", lambda *given: signal.raise_signal(signal.SIGTERM))
        assert cli(*training(run)).code == 4
    return run


def test_checkpoint_survives_a_disk_that_fills_up(stopped, training):
    before = contents(stopped)
    ended = with_small_disk(1_000_000, *training(stopped, "--resume"))
    assert ended.returncode == 3
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"fpnkit: error: {stopped / 'weights' / 'last.safetensors'}: could not be written: ")
    assert "File too large" in line
    after = {path: content for path, content in contents(stopped).items() if "tfevents" not in path.name}
    assert after == {path: content for path, content in before.items() if "tfevents" not in path.name}
    assert load_state(stopped / "state" / "last.pt")["step"] == 1


@contextlib.contextmanager
def limited(size: int):
    """No file of this process can grow beyond `size` bytes; lifted before pytest itself writes a log."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_training_state_survives_and_the_true_reason_is_told(tmp_path):
    path = tmp_path / "last.pt"
    checkpoint.save_state(path, {"step": 1})
    before = path.read_bytes()
    with (
        limited(100_000),
        pytest.raises(CheckpointError, match=r"last\.pt: could not be written: File too large"),
    ):
        checkpoint.save_state(path, {"step": 2, "random": torch.zeros(1_000_000)})
    assert contents(tmp_path) == {path: before}


def test_json_survives(tmp_path):
    path = tmp_path / "predictions.json"
    write_json(path, [1])
    before = path.read_bytes()
    with limited(1000), pytest.raises(CheckpointError, match="could not be written: File too large"):
        write_json(path, list(range(10_000)))
    assert contents(tmp_path) == {path: before}


def test_picture_that_cannot_be_written_is_named(tmp_path, cli, photo, loaded):
    with limited(1000):
        outcome = cli("predict", photo, "--out", tmp_path / "out", "--min-score", 0)
    outcome.refuses(3, tmp_path / "out" / "photo.annotated.jpg", "could not be written: File too large")
    assert contents(tmp_path / "out") == {}
