"""Several processes train as one, and finish though one of them is killed."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from fpnkit import zoo
from fpnkit.errors import ConfigError
from fpnkit.training.distributed import synchronised
from fpnkit.weights.checkpoint import load_state

pytest.importorskip("faster_coco_eval")

SCRIPT, FAULTY = (Path(__file__).with_name(name) for name in ("logged.py", "faulty.py"))
RECIPE = ("--crop", 64, "--batch-size", 4, "--set", "optim.optimizer=sgd", "optim.momentum=0.9", "val_losses=2")


@pytest.fixture(scope="module")
def start(training, weights):
    """Start a logged training in so many processes; its batch norms are frozen, as they are in all fine-tuning."""

    def run(out, processes: int, *more, fault: str | None = None, restarts: int = 0) -> subprocess.Popen:
        words = [str(word) for word in training(out, "--from", weights, *RECIPE, *more)]
        torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes), "--max-restarts", str(restarts)]
        torchrun += ["--standalone"]
        script = [str(SCRIPT)] if fault is None else [str(FAULTY), fault]
        command = [sys.executable, *(torchrun if processes > 1 else []), *script, *words]
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, start_new_session=True, **streams)

    return run


@pytest.fixture(scope="module")
def alone(start, tmp_path_factory):
    return finished(start, tmp_path_factory.mktemp("alone") / "run", 1)


@pytest.fixture(scope="module")
def together(start, tmp_path_factory):
    return finished(start, tmp_path_factory.mktemp("together") / "run", 2)


def finished(start, out, processes):
    process = start(out, processes)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    return out, output


def rows(run) -> list[dict]:
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_losses_and_figures_are_those_of_one_process(alone, together):
    ours, theirs = rows(together[0]), rows(alone[0])
    assert [row["step"] for row in ours] == [row["step"] for row in theirs] == list("123345667"[:8])
    for name in ours[0]:
        if name.startswith("loss/"):
            found, wanted = ([float(row[name]) for row in each if row[name]] for each in (ours, theirs))
            assert found == pytest.approx(wanted, abs=1e-5)
    for name in ("val/AP", "val/AR_100", "val/loss/roi_class"):
        found, wanted = ([float(row[name]) for row in each if row[name]] for each in (ours, theirs))
        assert found == pytest.approx(wanted, abs=1e-4)


def test_one_process_talks(together):
    assert together[1].count("2 classes, 6 steps") == 1
    assert together[1].count("done: best AP") == 1


def workers_of(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(each) for each in children if b"logged.py" in Path(f"/proc/{each}/cmdline").read_bytes()]


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the processes in /proc")
def test_a_killed_rank_loses_no_more_than_the_last_checkpoint(start, together, tmp_path):
    run = tmp_path / "run"
    process = start(run, 2, "--set", "checkpoint_seconds=0", restarts=3)
    deadline = time.monotonic() + 300
    while not (run / "state" / "last.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(workers_of(process.pid)[1], signal.SIGKILL)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    last = "weights/last.safetensors"
    assert (run / last).read_bytes() == (together[0] / last).read_bytes()
    assert [row["step"] for row in rows(run)] == [row["step"] for row in rows(together[0])]


def test_a_loss_that_is_not_finite_in_one_process_ends_all(start, tmp_path):
    process = start(tmp_path / "run", 2, fault="nan")
    output, _ = process.communicate(timeout=120)  # the others do not wait for the one that fails
    assert process.returncode != 0
    errors = [line for line in output.splitlines() if line.startswith("fpnkit: error: ")]
    assert len(errors) == 2, output
    for error in errors:
        assert "step 2: the loss is not finite" in error
        assert "rpn_box nan" in error
        assert ".png: rpn_box, boxes [[" in error


@pytest.mark.slow
def test_an_image_that_one_process_cannot_read_ends_all(start, tmp_path):
    process = start(tmp_path / "run", 2, fault="vanish")
    output, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "fpnkit: error: 2.png: no such file" in output


def test_a_signal_to_one_process_stops_all_at_the_same_step(start, tmp_path):
    run = tmp_path / "run"
    process = start(run, 2, fault="sigterm")
    output, _ = process.communicate(timeout=300)
    assert output.count("stopped at step 2: the same command with --resume goes on") == 1
    assert load_state(run / "state" / "last.pt")["step"] == 2


def test_a_batch_that_cannot_be_divided_is_refused(start, tmp_path):
    process = start(tmp_path / "run", 2, "--batch-size", 3)
    output, _ = process.communicate(timeout=600)
    assert process.returncode != 0
    assert "--batch-size 3 cannot be divided among 2 processes" in output


def test_norms_of_several_processes_need_gpus():
    with pytest.raises(ConfigError, match="sync_norms needs GPUs"):
        synchronised(zoo.build("faster_rcnn_lite0_fpn", 1), torch.device("cpu"))
