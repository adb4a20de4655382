"""Killed at any moment, in the midst of writing a checkpoint too, a training loses nothing that it had saved."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("faster_coco_eval")

KILLER = Path(__file__).with_name("killed.py")


def train(words, out, *, kills: int, seed: int, longest: float) -> tuple[str, int]:
    """Train, killed so often within so many seconds each; a hash of what is left, and the kills that it took."""
    command = [sys.executable, KILLER, kills, seed, longest, "--", *words[1:]]
    command = [str(each) for each in [*command[:6], "train", *command[6:]]]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stderr
    hashed = hashlib.sha256()
    for name in ("weights/last.safetensors", "weights/best.safetensors"):
        hashed.update((out / name).read_bytes())
    return hashed.hexdigest(), int(done.stdout.split("killed ")[1].split()[0])


@pytest.mark.parametrize("kills", [20, pytest.param(100, marks=pytest.mark.slow)])
def test_a_killed_training_ends_with_the_same_weights(kills, tmp_path, training):
    fields = ("checkpoint_seconds=0", "val_losses=0", "ema=0.9")  # a state after every step
    recipe = ("--crop", 64, "--epochs", 6, "--evaluate-every", 3, "--set", *fields)
    calm, _ = train(training(tmp_path / "calm", *recipe), tmp_path / "calm", kills=0, seed=0, longest=0)
    suffered = 0
    while suffered < kills:
        out = tmp_path / f"killed{suffered}"
        left = min(kills - suffered, 20)
        found, more = train(training(out, *recipe), out, kills=left, seed=suffered, longest=8)
        assert found == calm
        assert not list(out.rglob(".writing-*"))
        suffered += more
