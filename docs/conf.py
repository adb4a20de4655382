"""The site that `make docs` builds of these pages, README.md and the docstrings.

The source folder is the root of the repository, so that the pages' relative links work on a code host and here alike.
The table of contents is the list "Documentation" of README.md. The API reference has a page for each room (subpackage
or module of fpnkit), written to docs/api/ before each build, beside one with the help of every command.
"""

import argparse
import ast
import importlib
import inspect
import itertools
import os
import pkgutil
import re
from contextlib import suppress
from pathlib import Path
from textwrap import dedent, indent

from docutils import nodes
from sphinx.domains.python import PyObject
from sphinx.pycode import ModuleAnalyzer
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.nodes import make_refnode

import fpnkit
from fpnkit.cli.main import make_parser

ROOT = Path(__file__).parents[1]
API = ROOT / "docs" / "api"

project = "fpnkit"
copyright = "the authors of fpnkit, Apache-2.0"
release = version = fpnkit.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
root_doc = "README"
include_patterns = [
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "docs/**.md",
    "docs/api/*.rst",
    "src/fpnkit/zoo/weights/README.md",
]
exclude_patterns = ["**/.*", ".*", "build", "dist", "tests", "runs", "demo"]

# Every name of fpnkit and every link inside of the site must exist. Names of other packages lead nowhere: their
# inventories are not fetched.
nitpicky = True
suppress_warnings = ["ref.python"]  # short names that several modules have
nitpick_ignore_regex = [("py:.*", r"(?!fpnkit\b).*"), ("py:.*", r".*\b_\w+")]

myst_heading_anchors = 3

autodoc_inherit_docstrings = False
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
default_role = "code"
highlight_language = "bash"  # of blocks without a language: commands

html_theme = "furo"
html_title = f"fpnkit {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_additional_pages = {"index": "to_readme.html"}
html_copy_source = False
html_show_sourcelink = False
templates_path = ["_templates"]
copybutton_exclude = ".linenos, .gp, .go"


def write_api(_app):
    """A page for each room: what is imported from the room itself, then what its modules hold besides."""
    rooms = [room.name for room in pkgutil.iter_modules(fpnkit.__path__, "fpnkit.")]
    rooms = ["fpnkit", *(room for room in rooms if not re.search(r"\._|\.(cli|version)$", room))]
    public = {room: list(members(importlib.import_module(room), re_exported=True)) for room in rooms}
    places = {}  # of every object the one name that it is described by
    for room, found in public.items():
        for name, value, kind in found:
            places.setdefault(identity(f"{room}.{name}", value, kind), f"{room}.{name}")
    pages = {"commands": commands_page()}
    pages |= {room: page(room, found, places) for room, found in public.items()}
    API.mkdir(exist_ok=True)
    for path in API.glob("*"):
        if path.stem not in pages:
            path.unlink()
    for name, text in pages.items():
        path = API / f"{name}.rst"
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


def page(room, public, places):
    """The page of a room as reStructuredText.

    Args:
        room: its name.
        public: its public members.
        places: `identity` of a member -> the name that it is described by, on this page or on another.
    """
    lines = [*title(room, "="), "", f".. automodule:: {room}", "   :no-members:", ""]
    for name, value, kind in public:
        place = places[identity(f"{room}.{name}", value, kind)]
        described = place == f"{room}.{name}"
        lines += entry(room, name, kind) if described else [f"``{name}`` is :py:obj:`{place}`.", ""]
    folder = ROOT / "src" / room.replace(".", "/")
    names = [] if room == "fpnkit" else sorted(path.stem for path in folder.glob("[!_]*.py"))
    for name in [f"{room}.{name}" for name in names]:
        module = importlib.import_module(name)
        rest = [(each, kind) for each, value, kind in members(module) if identity(each, value, kind) not in places]
        if rest:
            lines += [*title(name, "-"), "", *as_rst(inspect.getdoc(module) or ""), ""]
            lines += [line for each, kind in rest for line in entry(name, each, kind)]
    return "\n".join(lines) + "\n"


def commands_page():
    """The help of every command, as a terminal of 100 columns shows it."""
    os.environ.update(COLUMNS="100", NO_COLOR="1")
    parser = make_parser()
    verbs = next(action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    lines = title("Commands", "=")
    for name, each in {"fpnkit": parser, **{f"fpnkit {verb}": each for verb, each in verbs.items()}}.items():
        lines += ["", *title(name, "-"), "", ".. code-block:: text", "", indent(each.format_help(), "    ")]
    return "\n".join(lines)


def identity(place, value, kind):
    """What is the same for all names of a class or function; equal constants are not the same."""
    return place if kind == "data" else id(value)


def members(module, *, re_exported=False):
    """Name, value and kind of the public classes, functions and constants of a module, in the order of the source.

    Args:
        module: the module.
        re_exported: only what `__all__` names, where there is one.
    """
    described = ModuleAnalyzer.for_module(module.__name__).find_attr_docs()
    names = getattr(module, "__all__", None) if re_exported else None
    for name in names or [name for name in vars(module) if not name.startswith("_")]:
        value = getattr(module, name)
        if inspect.ismodule(value):
            continue
        elif ("", name) in described:
            yield name, value, "data"
        elif names or getattr(value, "__module__", None) == module.__name__:
            if inspect.isclass(value):
                yield name, value, "exception" if issubclass(value, Exception) else "class"
            elif callable(value) and inspect.getdoc(value):
                yield name, value, "function"


def entry(module, name, kind):
    """autodoc's directive."""
    inner = ["   :members:", "   :special-members: __call__"] if kind in ("class", "exception") else []
    return [f".. auto{kind}:: {module}::{name}", *inner, ""]


def title(text, underline):
    """A heading."""
    return [text, underline * len(text)]


def as_docstring(_app, what, _name, _object, _options, lines):
    """autodoc's hook, before napoleon's: our docstrings are plain text with Markdown's backticks."""
    lines[:] = as_rst("\n".join(lines))
    if what in ("attribute", "data", "property"):
        lines[:0] = ["..", ""]  # an empty comment: napoleon takes what a first line has before a colon for a type


def as_rst(text):
    """Lines of a docstring as reStructuredText; indented paragraphs and drawings are code."""
    paragraphs = re.split(r"\n\s*\n", text.rstrip())
    lines = []
    for code, group in itertools.groupby(
        paragraphs, lambda each: bool(re.match(" {4}", each) or re.search("[─│]", each))
    ):
        whole = "\n\n".join(group)
        lines += [*(code_block(whole) if code else prose(whole)), ""]
    return lines


def code_block(text):
    """Code, or a drawing."""
    try:
        ast.parse(dedent(text))
        language = "python"
    except SyntaxError:
        language = "text"
    return [f".. code-block:: {language}", "", *indent(dedent(text), "    ").split("\n")]


def prose(text):
    """Sections, and Markdown's backticks."""
    # napoleon takes words before a colon for a type
    text = re.sub(r"^( *)Returns:\n +", r"\n\1:returns: ", text, flags=re.M)
    text = re.sub(r"^Source: (.+(?:\n(?!\w+:$).+)*)", source_field, text, flags=re.M)
    text = re.sub(r"^( +\w+), (\w+): ", r"\1,\2: ", text, flags=re.M)
    parts = re.split(r"(`[^`]+`)", text)
    parts[::2] = [re.sub(r"([*|]|(?<=\w)_\b)", r"\\\1", part) for part in parts[::2]]
    parts[1::2] = [f"\\ `{part}`\\ " for part in parts[1::2]]  # `\ ` lets a literal touch other characters
    return re.sub(r"(?<!\S)\\ (?=`)|(?<=`)\\ (?!\S)", "", "".join(parts)).split("\n")


def source_field(found):
    """`Source: ...` as a field; its further lines stand no deeper in our docstrings."""
    return "\n:Source: " + re.sub(r"\n *", "\n    ", found[1])


def add_contents(_app, docname, source):
    """README and docs/api.md get the table of contents that Sphinx needs and a code host would show as it stands."""
    if docname == root_doc:
        for caption, links in re.findall(r"^- \*\*(.+?)\*\*: (.+(?:\n  .+)*)", source[0], flags=re.M):
            pages = re.findall(r"\[([^]]+)\]\(([^)]+)\.md\)", links)
            titled = [f"{' '.join((text[0].upper() + text[1:]).split())} <{page}>" for text, page in pages]
            source[0] += "\n" + toctree(titled, f":caption: {caption}\n:hidden:")
    elif docname == "docs/api":
        source[0] += "\n" + toctree(sorted(f"api/{path.stem}" for path in API.glob("*.rst")), ":hidden:")


def toctree(pages, options):
    """MyST's directive."""
    return "\n".join(["```{toctree}", options, "", *pages, "```", ""])


class LinkNames(SphinxPostTransform):
    """Names such as `fpnkit.load` in the pages lead to the API reference."""

    default_priority = 400

    def run(self):
        objects = self.env.get_domain("py").objects
        for literal in list(self.document.findall(nodes.literal)):
            name = re.split(r"[(\[]", literal.astext())[0]
            found = objects.get(name)
            if found and not isinstance(literal.parent, nodes.reference):
                link = make_refnode(self.app.builder, self.env.docname, found.docname, found.node_id, literal.copy())
                link[0] += list(literal.children)
                literal.replace_self(link)


def type_alias(_app, _env, reference, shown):
    """Aliases and type variables in signatures have no entry of their own: shown without a link."""
    module, _, name = reference.get("reftarget", "").rpartition(".")
    if module.startswith("fpnkit."):
        with suppress(ImportError, AttributeError):
            if not inspect.isclass(getattr(importlib.import_module(module), name)):
                return shown
    return None


def setup(app):
    for field in PyObject.doc_field_types:
        if field.name == "variable":
            field.label = "Attributes"
    app.connect("builder-inited", write_api)
    app.connect("source-read", add_contents)
    app.connect("autodoc-process-docstring", as_docstring, priority=400)
    app.connect("missing-reference", type_alias)
    app.add_post_transform(LinkNames)
