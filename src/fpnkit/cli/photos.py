"""What the verbs share that read photographs: their options, the files of their pictures, and the loop."""

from __future__ import annotations

import argparse
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from ..data.paths import MAX_PIXELS
from ..errors import ConfigError, DataError
from .wording import in_options

Result = TypeVar("Result")

Place = tuple[Path, Path]
"""A photograph, and the file for its picture."""

OWN_ENDINGS = (".annotated.jpg", ".levels.jpg")

MODEL = (
    "'default' (ships, finds people), 'coco80' (ships, 80 classes), a run's or export's folder, or a .safetensors file"
)
"""What MODEL may be."""


def add_options(parser: argparse.ArgumentParser, *, out: str) -> None:
    """Paths, model, least score, output folder and device."""
    parser.add_argument(
        "paths", nargs="+", type=Path, metavar="PATH", help="image files, and folders of them at any depth"
    )
    parser.add_argument("--model", default="default", help=f"{MODEL} (default: %(default)s)")
    parser.add_argument(
        "--min-score",
        type=float,
        default=0.5,
        metavar="S",
        help="leave out boxes of a lower score, 0..1 (default: %(default)s)",
    )
    add_out(parser, out)
    add_device(parser)


def add_out(parser: argparse.ArgumentParser, folder: str) -> None:
    """--out."""
    help_text = "folder for what is written (default: %(default)s)"
    parser.add_argument("--out", type=Path, default=Path(folder), metavar="DIR", help=help_text)


def add_device(parser: argparse.ArgumentParser) -> None:
    """--device and --precision of a model in use."""
    parser.add_argument(
        "--device",
        default="auto",
        help="where PyTorch computes: cpu, cuda, or auto for a GPU if there is one; graphs run on the CPU "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--precision",
        choices=("float32", "bf16"),
        help="bf16 is faster where the processor has it, and rounds (default: float32, or what the model was "
        "exported for)",
    )


def add_engine(parser: argparse.ArgumentParser) -> None:
    """--engine."""
    parser.add_argument(
        "--engine",
        choices=("auto", "torch", "onnxruntime", "openvino"),
        help="what computes; weights run in onnxruntime and openvino, too, as a graph that is made of them once; auto "
        "takes the fastest that is installed (default: torch for weights, auto for exports)",
    )


def add_limits(parser: Any) -> None:
    """--detections and --max-pixels."""
    parser.add_argument(
        "--detections",
        type=int,
        metavar="N",
        help="most boxes an image (default: the model's own number, mostly 100; an exported graph has its own inside)",
    )
    add_max_pixels(parser)


def add_max_pixels(parser: Any) -> None:
    """--max-pixels."""
    parser.add_argument(
        "--max-pixels",
        type=int,
        default=MAX_PIXELS,
        metavar="N",
        help="refuse images of more pixels, before they fill the memory (default: %(default)s)",
    )


def add_compile(parser: argparse.ArgumentParser) -> None:
    """--compile."""
    parser.add_argument(
        "--compile",
        action="store_true",
        help="torch.compile the network: a minute at its first image, then faster on GPUs (engine torch only)",
    )


def require_score(score: float) -> None:
    """
    Raises:
        ConfigError: not a score.
    """
    if not 0 <= score <= 1:
        raise ConfigError(f"--min-score must lie in 0..1, got {score}")


def each_photo(
    places: Sequence[Place],
    unusable: list[DataError],
    process: Callable[[Sequence[Place]], Sequence[Result | DataError]],
    *,
    doing: str,
    workers: int = 1,
    batch: int = 1,
) -> list[Result]:
    """Process every photograph; those that cannot be read are named and skipped.

    Args:
        places: photographs.
        unusable: paths without any photograph; what cannot be read is added.
        process: from some photographs to the result of each, or why it cannot be read; see `one_by_one`.
        doing: words beside the progress bar.
        workers: calls of `process` at a time, so that reading, computing and writing overlap.
        batch: photographs of one call.
    Raises:
        DataError: none could be read.
    """
    from .terminal import progress_bar

    several = len(places) + len(unusable) > 1
    if several:
        for error in unusable:
            _warn(error)
    seen: list[Result] = []
    groups = [places[start : start + batch] for start in range(0, len(places), batch)]
    with progress_bar() as progress, ThreadPoolExecutor(workers) as pool:
        task = progress.add_task(doing, total=len(places), note="")
        for each in _in_order(pool, process, groups, 2 * workers):
            for found in each.result():
                if not isinstance(found, DataError):
                    seen.append(found)
                else:
                    unusable.append(found)
                    if several:
                        _warn(found)
                progress.advance(task)
    if not seen:
        others = f" (none of {len(unusable)} images could be read)" if several else ""
        raise DataError(f"{unusable[0]}{others}")
    return seen


def one_by_one(process: Callable[[Path, Path], Result]) -> Callable[[Sequence[Place]], list[Result | DataError]]:
    """For `each_photo`, of a function that takes one photograph and the file for its picture."""

    def attempt(place: Place) -> Result | DataError:
        try:
            return process(*place)
        except DataError as error:
            return error

    return lambda places: [attempt(place) for place in places]


def _in_order(
    pool: ThreadPoolExecutor,
    process: Callable[[Sequence[Place]], Sequence[Result | DataError]],
    groups: Sequence[Sequence[Place]],
    most: int,
) -> Iterator[Future[Sequence[Result | DataError]]]:
    """What comes of each group, in order; at most so many are under way, which keeps memory flat."""
    waiting: deque[Future[Sequence[Result | DataError]]] = deque()
    try:
        for group in groups:
            waiting.append(pool.submit(process, group))
            if len(waiting) == most:
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()
    finally:
        for each in waiting:
            each.cancel()


def find_places(paths: list[Path], out: Path, ending: str) -> tuple[list[Place], list[DataError]]:
    """Each photograph with the file for its picture, folders' in the same tree; and paths without any photograph."""
    from ..data.images import find_images

    places: list[Place] = []
    unusable: list[DataError] = []
    taken: set[str] = set()
    for given in paths:
        try:
            images = [path for path in find_images([given]) if path == given or not _is_own(path)]
            if not images:
                raise DataError(f"{given}: the folder holds nothing but pictures that fpnkit made")
            for path in images:
                name = Path(path.name) if path == given else path.relative_to(given)
                places.append((path, free_place(out / name.with_suffix(""), ending, taken)))
        except DataError as error:
            unusable.append(error)
    return places, unusable


def free_place(stem: Path, ending: str, taken: set[str]) -> Path:
    """STEM + ending, numbered when it is taken, or there and not fpnkit's own to overwrite; taken from now on."""
    number, picture = 1, stem.with_name(stem.name + ending)
    while str(picture).casefold() in taken or (os.path.lexists(picture) and not _is_own(picture)):
        number += 1
        picture = stem.with_name(f"{stem.name}-{number}{ending}")
    taken.add(str(picture).casefold())
    return picture


def _is_own(path: Path) -> bool:
    from ..pictures.annotate import drawn_here

    return path.name.endswith(OWN_ENDINGS) and not path.is_symlink() and drawn_here(path)


def _warn(error: DataError) -> None:
    from .terminal import errors

    errors.print(f"skipped: {in_options(' '.join(str(error).split()))}", style="yellow", soft_wrap=True)
