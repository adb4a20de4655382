"""The `fpnkit` command."""

from __future__ import annotations

import argparse
import io
import sys
import traceback
import warnings
from collections.abc import Sequence

from ..errors import CheckpointError, ConfigError, DataError, FpnkitError
from ..version import __version__
from . import (
    bench,
    convert,
    demo,
    doctor,
    evaluate,
    export,
    export_weights,
    import_weights,
    levels,
    models,
    predict,
    study,
    train,
)
from .wording import in_options, option_names, speaking_of

OK, FAILED, USAGE, BAD_DATA, PARTLY = range(5)

VERBS = (
    demo,
    predict,
    levels,
    doctor,
    convert,
    train,
    evaluate,
    export,
    import_weights,
    export_weights,
    bench,
    models,
    study,
)

EPILOG = """\
examples:
  fpnkit demo                                   see it work, with shipped photographs
  fpnkit predict photo.jpg                      find people with the shipped model
  fpnkit predict holiday/ --out found           a folder of photographs
  fpnkit levels photo.jpg                       see what each level of the pyramid sees
  fpnkit train --data mydata/ --out runs/mine   fit a detector to your own images
  fpnkit evaluate runs/mine --data mydata:val   measure it as COCO does
  fpnkit export runs/mine --out mine-onnx       one graph that runs without PyTorch

'fpnkit VERB --help' explains a verb, with examples.

exit codes: 0 ok, 1 failed, 2 wrong usage, 3 invalid data or weights, 4 partly done
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb.

    Returns:
        The exit code: 0 ok, 1 failed, 2 usage, 3 data or weights invalid, 4 partly done.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names may hold what a terminal cannot show
    warnings.filterwarnings("ignore", module="PIL")  # of images that are read all the same
    chosen = make_parser().parse_args(arguments)
    with speaking_of(chosen.option_names):
        return _run(chosen)


def _run(chosen: argparse.Namespace) -> int:
    try:
        return chosen.run(chosen)
    except KeyboardInterrupt:
        return _fail("interrupted", FAILED)
    except FpnkitError as error:
        if chosen.debug:
            traceback.print_exc()
        return _fail(str(error), _exit_code(error))
    except Exception as error:
        if chosen.debug:
            traceback.print_exc()
        if isinstance(error, OSError) and error.filename is not None:
            return _fail(f"{error.filename}: {error.strerror}", FAILED)
        return _fail(f"{type(error).__name__}: {error} (--debug shows where)", FAILED)


def make_parser() -> argparse.ArgumentParser:
    """The command with all its verbs."""
    parser = argparse.ArgumentParser(
        prog="fpnkit",
        description="Feature pyramid networks: detect objects at every scale, on CPUs and GPUs.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"fpnkit {__version__}")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    for verb in VERBS:
        verb_parser = verb.add_parser(verbs)
        verb_parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
        verb_parser.set_defaults(run=verb.run, option_names=option_names(verb_parser))
    return parser


def _exit_code(error: FpnkitError) -> int:
    if isinstance(error, ConfigError):
        return USAGE
    return BAD_DATA if isinstance(error, DataError | CheckpointError) else FAILED


def _fail(message: str, code: int) -> int:
    print(f"fpnkit: error: {in_options(' '.join(message.split()))}", file=sys.stderr)
    return code
