"""The script of docs/export.md in an environment that has ONNX Runtime and Pillow, and neither fpnkit nor torch."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fpnkit.cli.main import main
from fpnkit.data.samples import FOLDER

DOCUMENT = Path(__file__).parents[2] / "docs" / "export.md"


@pytest.mark.slow
def test_an_export_needs_nothing_but_onnx_runtime(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    section = DOCUMENT.read_text().split("## Without fpnkit")[1]
    script = section.split("```python\n")[1].split("```")[0]
    assert main(["export", "default", "--resize", "--out", "person-whole"]) == 0
    shutil.copy(FOLDER / "astronaut.jpg", "photo.jpg")
    subprocess.run([sys.executable, "-m", "venv", "bare"], check=True)
    subprocess.run(["bare/bin/pip", "install", "--quiet", "onnxruntime", "pillow"], check=True)
    for absent in ("fpnkit", "torch"):
        assert subprocess.run(["bare/bin/python", "-c", f"import {absent}"], capture_output=True).returncode == 1
    run = subprocess.run(["bare/bin/python", "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.startswith("person ")
