"""What a data format is: how it is recognised, read and written. `formats.FORMATS` lists them, each has its file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from .annotated import AnnotatedImages
from .source import Source

Sniff = Callable[[Path], tuple[Path, str | None] | None]
Splits = Callable[[Path], tuple[str, ...]]
Read = Callable[[Path, str | None, "ReadOptions"], list[Source]]
Write = Callable[[Mapping[str, AnnotatedImages], Path, Callable[[], None]], int]


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """What a reader may need besides the path.

    Attributes:
        images_dir: the folder of the images; None: where the format looks for them.
        max_pixels: see `read_image`, for a format that does not say how large its images are.
    """

    images_dir: Path | None
    max_pixels: int


@dataclass(frozen=True, kw_only=True)
class DataFormat:
    """A format of annotated images. A reader translates into entries of COCO's form; `source.checked` checks them.

    Attributes:
        name: what `convert` and the command line call it.
        title: its proper name.
        description: the paths that it is recognised by, for help and errors.
        writes: the files that `write` makes.
        loses: what it has no place for, a sentence; empty when it holds everything.
        images_apart: its images may be in any folder: `images_dir` of `read_data` names it.
        sniff: an existing path -> the root of the data set (a file or folder) and the split that the path itself
            names, or None: another format. A `DataError` says what is missing where the path is almost of this format;
            it is raised if no other format takes the path.
        splits: root -> names of its splits; empty when it is one whole.
        read: root, split, options -> the entries of the split, or those of everything in one or more parts when the
            split is None.
        write: splits of the same classes, an empty folder, a function to call after each image -> how many boxes were
            left out because the format has no place for them.
    """

    name: str
    title: str
    description: str
    writes: str
    loses: str = ""
    images_apart: bool = False
    sniff: Sniff
    splits: Splits
    read: Read
    write: Write
