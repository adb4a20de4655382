"""What may stand in which room, where the layers of imports cannot tell."""

import ast
import re
from pathlib import Path

import pytest

import fpnkit

PACKAGE = Path(fpnkit.__file__).parent


def files(*, but: tuple[str, ...]) -> list[Path]:
    """Of the package, outside of some rooms."""
    return [path for path in PACKAGE.rglob("*.py") if path.relative_to(PACKAGE).parts[0] not in but]


def names_in(path: Path) -> set[str]:
    """Every name and attribute that code uses or imports; not what texts say."""
    tree = ast.parse(path.read_text())
    found = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    return found | {alias.name for node in imports for alias in node.names}


def test_nothing_above_detectors_names_faster_rcnn():
    assert [path for path in files(but=("detectors", "zoo")) if "FasterRCNN" in names_in(path)] == []


def test_nothing_above_detectors_reads_the_heads_of_a_detector():
    owners = ("spec", "config", "self", "template", "study")  # a spec and a config have fields of these names
    for path in files(but=("detectors", "heads", "zoo")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr in ("rpn", "roi"):
                owner = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
                assert owner in owners, f"{path}:{node.lineno}"


@pytest.mark.parametrize("name", ["signal", "argparse"])
def test_signals_and_arguments_are_the_command_lines(name):
    allowed = {PACKAGE / "weights" / "interop.py"} if name == "argparse" else set()  # checkpoints hold a Namespace
    assert {path for path in files(but=("cli",)) if name in names_in(path)} <= allowed


def test_messages_of_the_library_name_parameters_not_options():
    option = re.compile(r"(?<![\w-])--[a-z]")
    for path in files(but=("cli",)):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Raise):
                texts = [each.value for each in ast.walk(node) if isinstance(each, ast.Constant)]
                assert not any(isinstance(text, str) and option.search(text) for text in texts), f"{path}:{node.lineno}"


def test_nobody_reads_the_arguments_of_the_process():
    users = [path for path in PACKAGE.rglob("*.py") if "sys.argv" in path.read_text()]
    assert {path.parent.name for path in users} <= {"cli"}
