"""fpnkit export-weights: a checkpoint for torchvision or detectron2."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .import_weights import add_library

EPILOG = """\
examples:
  fpnkit export-weights run --to torchvision --out model.pth
      in torchvision:  model = fasterrcnn_resnet50_fpn(num_classes=1 + CLASSES); model.load_state_dict(torch.load(...))
  fpnkit export-weights run --to detectron2 --out model.pth
      in detectron2:   MODEL.WEIGHTS: model.pth, with the rest of COCO-Detection/faster_rcnn_R_50_FPN_3x.yaml

Of models that the library has, too: torchvision_r50_fpn, torchvision_r101_fpn; detectron2_r50_fpn, detectron2_r101_fpn,
detectron2_r50_fpn_rgb, detectron2_r101_fpn_rgb. docs/interop.md says what belongs into detectron2's configuration.
"""


def add_parser(verbs: Any) -> argparse.ArgumentParser:
    """Declare the verb and its options."""
    parser = verbs.add_parser(
        "export-weights",
        help="a checkpoint for torchvision or detectron2",
        description="Write a trained model as a checkpoint of torchvision or detectron2.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", help="a run's folder or a .safetensors file")
    add_library(parser, "--to", "library", "the library that reads it")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the .pth file to write")
    parser.add_argument(
        "--norm-eps", type=float, default=1e-5, metavar="EPS", help="of the batch norms there (default: %(default)s)"
    )
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Export; 0 when done."""
    from ..errors import ConfigError
    from ..inference.predictor import find_model
    from ..weights.interop import export_weights
    from .terminal import console

    if arguments.out.suffix != ".pth":
        raise ConfigError(f"--out must end in .pth, got {arguments.out}")
    weights = find_model(arguments.model)
    if weights.is_dir():
        raise ConfigError(f"{weights} is an exported graph: pass the run or the weights that it was made of")
    card = export_weights(weights, arguments.library, arguments.out, norm_eps=arguments.norm_eps)
    console.print(
        f"{arguments.out}: {card.name} for {arguments.library}, labels {', '.join(card.classes[:5])}"
        f"{' ...' * (len(card.classes) > 5)}",
        soft_wrap=True,
    )
    return 0
