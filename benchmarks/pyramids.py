"""What each pyramid costs on one backbone: parameters, multiplications, milliseconds, in interleaved rounds.

python benchmarks/pyramids.py --backbone resnet50 --channels 256 --side 512 --json pyramids.json
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from fpnkit.files import write_json
from fpnkit.pyramids import FPN, PAN, BiFPN, FeatureHierarchy, FinestLevel, ImagePyramid, SingleMap, TopDownOnly
from fpnkit.studies import StudyConfig
from fpnkit.studies.costs import measure_costs
from fpnkit.studies.report import cost_cells, cost_headings
from fpnkit.studies.tasks import make_task

PYRAMIDS = {
    "FPN": FPN,
    "FPN, residual connections": lambda levels, channels: FPN(levels, channels, connection="residual"),
    "FPN, P6 and P7 by convolution": lambda levels, channels: FPN(levels, channels, extra="conv_c5", extra_levels=2),
    "ImagePyramid, C4 at 2, 1, 0.5": lambda levels, channels: ImagePyramid(levels, channels, level="c4"),
    "SingleMap, C4": lambda levels, channels: SingleMap(levels, channels, level="c4"),
    "SingleMap, C5": SingleMap,
    "FeatureHierarchy": FeatureHierarchy,
    "TopDownOnly": TopDownOnly,
    "FinestLevel": FinestLevel,
    "PAN": PAN,
    "BiFPN, 3 rounds": BiFPN,
}


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="resnet50", help="of timm (default: %(default)s)")
    parser.add_argument("--channels", type=int, default=256, help="d (default: %(default)s)")
    parser.add_argument("--side", type=int, default=512, help="of the square image, pixels (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    config = StudyConfig(backbone=arguments.backbone, channels=arguments.channels, frozen_stages=0)
    tasks = {
        name: make_task("rpn", pyramid, config, 1, fill=lambda backbone: None) for name, pyramid in PYRAMIDS.items()
    }
    costs = measure_costs(tasks, arguments.side)
    print(f"| {' | '.join(['pyramid', *cost_headings()])} |")
    print("|---" * (1 + len(cost_headings())) + "|")
    for name, cost in costs.items():
        print(f"| {' | '.join([name, *cost_cells(cost)])} |")
    print(f"\nPyTorch {torch.__version__}, {torch.get_num_threads()} threads.")
    if arguments.json:
        write_json(arguments.json, {"torch": torch.__version__, "settings": vars(arguments) | {"json": None}, **costs})


if __name__ == "__main__":
    main()
