"""The code in README and docs runs, and the commands in them parse."""

import re
import shlex
import shutil
from pathlib import Path

import pytest

from fpnkit.cli.main import main, make_parser
from fpnkit.data.samples import FOLDER

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(path: Path, language: str) -> str:
    """All fenced blocks of a language, in order: later ones may use the names of earlier ones."""
    return "\n".join(re.findall(rf"^```{language}\n(.*?)^```", path.read_text(), flags=re.M | re.S))


@pytest.mark.parametrize("path", [path for path in DOCUMENTS if blocks(path, "python")], ids=lambda path: path.name)
def test_python_blocks_run(path, tmp_path, monkeypatch):
    for name in ("street.jpg", "photo.jpg"):
        shutil.copy(FOLDER / "astronaut.jpg", tmp_path / name)
    monkeypatch.chdir(tmp_path)
    if "person-whole" in blocks(path, "python"):
        assert main(["export", "default", "--resize", "--out", "person-whole"]) == 0
    exec(compile(blocks(path, "python"), str(path), "exec"), {})


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_commands_parse(path):
    parser = make_parser()
    text = blocks(path, "").replace("\\\n", " ")
    for line in re.findall(r"^(?:\$ )?fpnkit ([^#\n]*)", text, flags=re.M):
        words = shlex.split(line)
        if words[-1] not in ("--help", "--version"):
            parser.parse_args(words)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#]+)", path.read_text()):
        assert "://" in target or (path.parent / target).exists(), target
