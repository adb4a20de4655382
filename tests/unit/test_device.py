"""The machine is described on every system."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from fpnkit import device

LOADED_WITHOUT_RESOURCE = """
import sys
sys.modules["resource"] = None  # as on Windows, where importing it fails
import fpnkit
from fpnkit.device import machine, peak_process_memory
assert peak_process_memory() is None
assert machine()["cores"]
print(len(fpnkit.load("default", device="cpu").classes))
"""


def test_models_load_where_the_system_has_no_resource():
    printed = subprocess.run(
        [sys.executable, "-c", LOADED_WITHOUT_RESOURCE], capture_output=True, text=True, check=True
    )
    assert printed.stdout.split() == ["1"]


@pytest.mark.parametrize(("platform", "unit"), [("linux", 1024), ("darwin", 1)])
def test_peak_memory_is_in_bytes_on_linux_and_macos(platform, unit, monkeypatch):
    import resource

    monkeypatch.setattr(device, "sys", SimpleNamespace(platform=platform))
    counted = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert device.peak_process_memory() == pytest.approx(unit * counted, rel=0.01)
