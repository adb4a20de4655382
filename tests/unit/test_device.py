"""The machine is described on every system."""

import subprocess
import sys

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


def test_peak_memory_is_in_bytes_on_linux_and_macos(monkeypatch):
    import resource

    here = device.peak_process_memory()
    assert here > 50 * 2**20  # torch alone
    counted = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    monkeypatch.setattr(sys, "platform", "darwin")
    assert device.peak_process_memory() == resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >= counted
    monkeypatch.setattr(sys, "platform", "linux")
    assert device.peak_process_memory() == 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
