"""fpnkit levels: what each level of the pyramid made of photographs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .output import require_folder
from .photos import add_max_pixels, add_options, each_photo, find_places, free_place, one_by_one, require_score

EPILOG = """\
examples:
  fpnkit levels photo.jpg                           with the shipped model, which finds people
  fpnkit levels holiday/ --out seen                 a folder; the sizes of all objects in one plot
  fpnkit levels street.jpg --model runs/mine --min-score 0.3

writes to --out:
  NAME.levels.jpg    the photograph with its boxes, each in the colour of the level that it was read from; and for
                     each level P2..P6 a heat map of the RPN's objectness. In white, to scale, where it is strongest:
                     one cell of the level's map and its anchors
  sizes.levels.jpg   a dot for each object of all photographs, its size against its level, and the steps of eq. 1,
                     which gives large objects to coarse levels and small ones to fine levels

Folders keep their tree; files that are not fpnkit's own are never overwritten. Needs matplotlib, which
`pip install 'fpnkit[train]'` brings. Exit code 4 when some images could not be read.
"""

ENDING = ".levels.jpg"


def add_parser(verbs: Any) -> argparse.ArgumentParser:
    """Declare the verb and its options."""
    parser = verbs.add_parser(
        "levels",
        help="see what each level of the pyramid sees",
        description="Draw what each level of the pyramid sees in images, and which level reads objects of which size.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_options(parser, out="fpnkit-levels")
    add_max_pixels(parser)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Draw; 0 when every image was read, 4 when some were not, 3 when none was."""
    require_score(arguments.min_score)
    require_folder(arguments.out)
    import numpy as np

    from ..inference.predictor import load
    from ..levels.plots import draw_levels, draw_object_sizes
    from ..levels.view import eq1_steps, view_levels
    from ..pictures.plots import require_matplotlib
    from .terminal import console

    require_matplotlib()
    places, unusable = find_places(arguments.paths, arguments.out, ENDING)
    predictor = load(
        arguments.model, device=arguments.device, precision=arguments.precision, max_pixels=arguments.max_pixels
    )

    def process(path: Path, picture: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        view = view_levels(predictor, path, min_score=arguments.min_score)
        draw_levels(picture, view)
        return view.object_sizes(), view.result.levels, view.result.scores

    seen = each_photo(places, unusable, one_by_one(process), doing="drawing")
    sizes, levels, scores = (np.concatenate(each) for each in zip(*seen, strict=True))
    steps = eq1_steps(predictor.detector)
    taken = {str(picture).casefold() for _, picture in places}
    plot = free_place(arguments.out / "sizes", ENDING, taken)
    draw_object_sizes(plot, sizes, levels, scores, steps)
    shares = ", ".join(f"{int((levels == step.number).sum())} from P{step.number}" for step in steps)
    console.print(f"{len(sizes)} objects in {len(seen)} images: {shares}")
    console.print(f"pictures of the levels and {plot.name} in {arguments.out}", soft_wrap=True)
    return 4 if unusable else 0
