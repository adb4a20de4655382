"""fpnkit demo: the shipped model on the shipped photographs."""

from __future__ import annotations

import argparse
from typing import Any

from . import predict
from .output import require_folder
from .photos import add_out


def add_parser(verbs: Any) -> argparse.ArgumentParser:
    """Declare the verb and its options."""
    parser = verbs.add_parser(
        "demo",
        help="try the shipped model on shipped photographs",
        description="Find the people in photographs that come with fpnkit, one of them a chart that holds the same "
        "photograph at six scales. Needs no network and no files of yours.",
    )
    add_out(parser, "demo")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Write the photographs to --out/photos, then `fpnkit predict` them into --out."""
    from ..data.samples import write_samples

    require_folder(arguments.out)
    photos = write_samples(arguments.out / "photos")
    words = [*map(str, photos), "--out", str(arguments.out)]
    verbs = argparse.ArgumentParser().add_subparsers()
    return predict.run(predict.add_parser(verbs).parse_args(words))
