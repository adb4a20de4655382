"""What each pyramid costs on one backbone: parameters, multiplications, milliseconds, in interleaved rounds.

python benchmarks/pyramids.py --backbone resnet50 --channels 256 --side 512 --json pyramids.json
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from fpnkit.files import write_json
from fpnkit.pyramids import PyramidConfig
from fpnkit.studies import StudyConfig
from fpnkit.studies.costs import measure_costs
from fpnkit.studies.report import cost_cells, cost_headings
from fpnkit.studies.tasks import make_task

PYRAMIDS = {
    "FPN": PyramidConfig(name="fpn"),
    "FPN, residual connections": PyramidConfig(name="fpn", options={"connection": "residual"}),
    "FPN, P6 and P7 by convolution": PyramidConfig(name="fpn", options={"extra": "conv_c5", "extra_levels": 2}),
    "ImagePyramid, C4 at 2, 1, 0.5": PyramidConfig(name="image_pyramid", options={"level": "c4"}),
    "SingleMap, C4": PyramidConfig(name="single_map", options={"level": "c4"}),
    "SingleMap, C5": PyramidConfig(name="single_map"),
    "FeatureHierarchy": PyramidConfig(name="feature_hierarchy"),
    "TopDownOnly": PyramidConfig(name="top_down_only"),
    "FinestLevel": PyramidConfig(name="finest_level"),
    "PAN": PyramidConfig(name="pan"),
    "BiFPN, 3 rounds": PyramidConfig(name="bifpn"),
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
    tasks = {name: make_task(config.spec("rpn", pyramid), 1) for name, pyramid in PYRAMIDS.items()}
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
