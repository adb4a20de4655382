"""Stopped at any moment, a training leaves a checkpoint, and what resumes it ends as if nothing had happened."""

import os
import signal
import time

import pytest

from fpnkit.cli import main, stop
from fpnkit.cli.training_screen import TrainingScreen
from fpnkit.training import trainer as train
from fpnkit.training.run_folder import RunFolder

pytest.importorskip("faster_coco_eval")

SMALL = ("--crop", 64)


def stop_at(patched, moment: str, signals: list) -> None:
    """Send signals to this process at `step N` or in the midst of the `evaluation N` of an epoch."""
    kind, number = moment.split()

    def send(here: bool) -> None:
        if here:
            for each in signals:
                os.kill(os.getpid(), each)

    show_step = TrainingScreen.on_step
    if kind == "step":

        def on_step(self, step, total, losses):
            show_step(self, step, total, losses)
            send(step == int(number))

        patched.setattr(TrainingScreen, "on_step", on_step)
    else:
        times = iter(range(1, 100))
        patched.setattr(TrainingScreen, "on_evaluated_images", lambda *given: send(next(times) == int(number)))


def log_all_and_draw_nothing(patched) -> None:
    patched.setattr(RunFolder, "LOG_EVERY", 1)
    patched.setattr(RunFolder, "draw_curves", lambda self: None)


def kept(run) -> dict[str, bytes]:
    names = ("weights/last.safetensors", "weights/best.safetensors", "metrics.csv", "config.json")
    return {name: (run / name).read_bytes() for name in names}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, training):
    """What a run of six steps leaves when nobody stops it."""
    run = tmp_path_factory.mktemp("uninterrupted") / "run"
    with pytest.MonkeyPatch.context() as patched:
        log_all_and_draw_nothing(patched)
        assert main([str(word) for word in training(run, *SMALL)]) == 0
    return kept(run)


@pytest.mark.parametrize(
    ("moment", "signals"),
    [
        ("step 2", [signal.SIGINT, signal.SIGTERM, signal.SIGINT]),
        ("evaluation 1", [signal.SIGTERM]),
        ("evaluation 3", [signal.SIGINT]),
    ],
)
def test_resumed_run_equals_the_uninterrupted_one_bit_for_bit(
    moment, signals, tmp_path, cli, training, monkeypatch, uninterrupted
):
    run = tmp_path / "run"
    log_all_and_draw_nothing(monkeypatch)
    with monkeypatch.context() as patched:
        stop_at(patched, moment, signals)
        outcome = cli(*training(run, *SMALL))
    assert (outcome.code, outcome.err) == (4, "")
    assert "the same command with --resume goes on" in outcome.out
    outcome = cli(*training(run, *SMALL, "--resume"))
    assert (outcome.code, outcome.err) == (0, "")
    assert kept(run) == uninterrupted


def test_stopped_and_resumed_after_every_step_it_is_still_the_same(tmp_path, cli, training, monkeypatch, uninterrupted):
    run, codes = tmp_path / "run", []
    log_all_and_draw_nothing(monkeypatch)
    for step in range(1, 7):
        with monkeypatch.context() as patched:
            stop_at(patched, f"step {step}", [signal.SIGTERM])
            codes.append(cli(*training(run, *SMALL, *["--resume"][: step - 1])).code)
    codes.append(cli(*training(run, *SMALL, "--resume")).code)
    assert codes == [4] * 6 + [0]
    assert kept(run) == uninterrupted


def test_a_second_request_does_not_wait(tmp_path, cli, training, monkeypatch):
    monkeypatch.setattr(stop, "ECHO_SECONDS", -1.0)
    stop_at(monkeypatch, "step 1", [signal.SIGINT, signal.SIGINT])
    cli(*training(tmp_path / "run", *SMALL)).refuses(1, "interrupted")


def test_handlers_are_given_back(tmp_path, cli, training, monkeypatch):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    stop_at(monkeypatch, "step 1", [signal.SIGTERM])
    assert cli(*training(tmp_path / "run", *SMALL)).code == 4
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_signal_to_the_whole_process_group_leaves_a_checkpoint(number, tmp_path, start, training, cli):
    """As a terminal sends it: the loading process gets it, too."""
    run = tmp_path / "run"
    process = start(*training(run, *SMALL, "--epochs", 40, "--workers", 1))
    log, deadline = run / "metrics.csv", time.monotonic() + 600
    while process.poll() is None and time.monotonic() < deadline and (not log.exists() or log.stat().st_size < 10):
        time.sleep(0.02)
    os.killpg(process.pid, number)
    stdout, stderr = process.communicate(timeout=600)
    assert (process.returncode, stderr) == (4, ""), stdout
    assert "stopped at step" in stdout
    state = train.load_state(run / "state" / "last.pt")
    assert 1 <= state["step"] < 120
    assert (run / "weights" / "last.safetensors").is_file()
    assert not list(run.rglob(".*"))
