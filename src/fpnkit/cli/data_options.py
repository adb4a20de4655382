"""Options that the verbs share which read annotated images, and the reading itself; those of training besides."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.formats import by_name, listed
from ..data.paths import MAX_PIXELS
from ..errors import ConfigError

if TYPE_CHECKING:
    from ..data.annotated import AnnotatedImages

FORMATS = f"{listed([each.description for each in by_name()])}; PATH:SPLIT of one that has several"
"""What DATA may be."""


def add_training_data(parser: argparse.ArgumentParser, *, out: str, out_help: str) -> Any:
    """Training and validation data, their classes and --out; the group, for more."""
    data = parser.add_argument_group("data")
    data.add_argument("--data", nargs="+", required=True, metavar="DATA", help=f"to train on: {FORMATS}")
    data.add_argument("--val", nargs="+", metavar="DATA", help="to validate on (default: the split val of --data)")
    add_images_dir(data)
    data.add_argument("--val-images", type=Path, metavar="DIR", help="the same for --val")
    add_choice(data)
    data.add_argument("--out", type=Path, required=True, metavar=out, help=out_help)
    return data


def add_images_dir(group: Any) -> None:
    """--images."""
    group.add_argument("--images", type=Path, metavar="DIR", help="images of a COCO file (default: found beside it)")


def add_choice(group: Any, *, classes: str = "all") -> None:
    """--classes, --rename and --strict."""
    group.add_argument("--classes", nargs="+", metavar="NAME", help=f"keep only these classes (default: {classes})")
    group.add_argument(
        "--rename", nargs="+", default=[], metavar="OLD=NEW", help="new names; classes of one new name become one"
    )
    group.add_argument("--strict", action="store_true", help="stop at a bad record instead of leaving it out")


def add_machine_options(parser: argparse.ArgumentParser) -> None:
    """--device, --precision and --workers."""
    machine = parser.add_argument_group("machine")
    machine.add_argument("--device", help="auto, cpu or cuda (default: auto)")
    machine.add_argument("--precision", choices=("bf16", "float32"), help="default: bf16")
    machine.add_argument("--workers", type=int, help="loading processes (default: 1)")


def read_training_data(
    arguments: argparse.Namespace, *, max_pixels: int = MAX_PIXELS
) -> tuple[AnnotatedImages, AnnotatedImages]:
    """Training and validation data of the same classes; records that are left out are named."""
    from ..training.data import read_train_and_val

    return read_train_and_val(
        arguments.data,
        arguments.val,
        images_dir=arguments.images,
        val_images_dir=arguments.val_images,
        classes=arguments.classes,
        rename=renamings(arguments.rename),
        strict=arguments.strict,
        max_pixels=max_pixels,
        check=functools.partial(decoded, strict=arguments.strict, max_pixels=max_pixels),
    )


def require_one_split(paths: Sequence[str]) -> None:
    """
    Raises:
        ConfigError: data of several splits and none is named: figures over all would count what was trained on.
    """
    from ..data.read import find_data

    for path in paths:
        found = find_data(path)
        if len(found.splits) > 1 and not found.split:
            raise ConfigError(f"{path} has the splits {', '.join(found.splits)}: name one, {path}:{found.splits[-1]}")


def read(
    paths: Sequence[str],
    *,
    images_dir: Path | None,
    classes: Sequence[str] | None = None,
    some: bool = False,
    rename: Sequence[str] = (),
    strict: bool = False,
    max_pixels: int = MAX_PIXELS,
) -> AnnotatedImages:
    """One or several data sets as one: every record checked, every image decoded, what is left out named.

    Args:
        paths: see `find_data`.
        images_dir: of COCO files.
        classes, some: see `selected`.
        rename: OLD=NEW each.
        strict: a bad record is an error.
        max_pixels: see `read_image`.
    Raises:
        DataError: see `read_data`, `check_images` and `selected`.
    """
    from ..data.annotated import selected
    from ..data.read import read_data

    found = read_data(paths, images_dir=images_dir, strict=strict, max_pixels=max_pixels)
    chosen = selected(found, classes, rename=renamings(rename), some=some)
    return decoded(chosen, strict=strict, max_pixels=max_pixels)


def read_splits(
    path: str,
    *,
    images_dir: Path | None,
    classes: Sequence[str] | None,
    rename: Sequence[str],
    strict: bool,
    max_pixels: int = MAX_PIXELS,
    quiet: bool = False,
) -> dict[str, AnnotatedImages]:
    """Every split of a data set apart, of the same classes; one that has none is called `train`, and VOC's `trainval`,
    which is two others, is left out.

    Args:
        path, images_dir, classes, rename, strict, max_pixels: as for `read`.
        quiet: what is left out is not printed.
    """
    from ..data.annotated import joined, selected
    from ..data.read import find_data, read_data

    renaming, found = renamings(rename), find_data(path)
    if found.split or not found.splits:
        paths = {found.split or "train": path}
    else:
        paths = {name: f"{path}:{name}" for name in found.splits if name != "trainval"}
    parts = {
        name: read_data(each, images_dir=images_dir, strict=strict, max_pixels=max_pixels)
        for name, each in paths.items()
    }
    classes = selected(joined(list(parts.values())), classes, rename=renaming).classes
    chosen = {name: selected(each, classes, rename=renaming, some=True) for name, each in parts.items()}
    return {name: decoded(each, strict=strict, quiet=quiet, max_pixels=max_pixels) for name, each in chosen.items()}


def decoded(
    chosen: AnnotatedImages, *, strict: bool, quiet: bool = False, max_pixels: int = MAX_PIXELS
) -> AnnotatedImages:
    """The images that can be decoded; what is wrong with the others, and with records, is printed.

    Raises:
        DataError: see `check_images`.
    """
    from ..data.read import check_images
    from .terminal import progress_bar, warn_of_problems

    with progress_bar() as progress:
        task = progress.add_task("checking images", total=len(chosen.records))
        checked = check_images(chosen, strict=strict, max_pixels=max_pixels, on_image=lambda: progress.advance(task))
    if not quiet:
        warn_of_problems(checked)
    return checked


def renamings(words: Sequence[str]) -> dict[str, str]:
    """OLD=NEW each -> old name: new name.

    Raises:
        ConfigError: another word.
    """
    made = {}
    for word in words:
        old, equals, new = word.partition("=")
        if not (old and equals and new):
            raise ConfigError(f"--rename takes OLD=NEW, got {word!r}")
        made[old] = new
    return made
