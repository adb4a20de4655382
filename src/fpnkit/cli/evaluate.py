"""fpnkit evaluate: how good a detector is, in COCO's figures."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from ..errors import CheckpointError, ConfigError
from .data_options import FORMATS, add_choice, add_images_dir, read, require_one_split
from .output import require_folder
from .photos import MODEL, add_device, add_engine, add_limits, add_out

if TYPE_CHECKING:
    from rich.table import Table

    from ..data.annotated import AnnotatedImages

EPILOG = """\
examples:
  fpnkit evaluate default --data val.json --images val/ --classes person
  fpnkit evaluate runs/mine --data mydata:test --out report

prints and writes to --out:
  metrics.json            AP AP50 AP75 AP_small AP_medium AP_large AR_1 AR_10 AR_100 AR_small AR_medium AR_large,
                          and of the RPN's proposals AR_100 AR_1000 AR_1000_small AR_1000_medium AR_1000_large, each
                          as proposals/AR_100; all in 0..1, -1 where undefined
  detections.json         what was found, as COCO results, for other tools
  images.json             the images and categories of its ids, whatever format the data is in
  precision_recall.png    one curve an IoU threshold
"""

MEANINGS = {
    "AP": "mean over IoU 0.50..0.95",
    "AP50": "at IoU 0.50",
    "AP75": "at IoU 0.75",
    "AP_small": "objects under 32 x 32 pixels",
    "AP_medium": "32 x 32 to 96 x 96",
    "AP_large": "above 96 x 96",
    "AR_1": "recall with 1 box an image",
    "AR_10": "with 10",
    "AR_100": "with 100",
    "AR_small": "small objects",
    "AR_medium": "medium",
    "AR_large": "large",
    "proposals/AR_100": "recall of 100 RPN proposals, any class",
    "proposals/AR_1000": "of 1000",
    "proposals/AR_1000_small": "of 1000, small objects",
    "proposals/AR_1000_medium": "medium",
    "proposals/AR_1000_large": "large",
}
"""Figure -> what it says."""


def add_parser(verbs: Any) -> argparse.ArgumentParser:
    """Declare the verb and its options."""
    parser = verbs.add_parser(
        "evaluate",
        help="COCO average precision and proposal recall",
        description="Score a detector as COCO does, on annotations of any format.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", help=MODEL)
    data = parser.add_argument_group("data")
    data.add_argument("--data", nargs="+", required=True, metavar="DATA", help=FORMATS)
    add_images_dir(data)
    add_choice(data, classes="the model's")
    add_out(parser, "fpnkit-evaluation")
    parser.add_argument(
        "--batch-size", type=int, default=1, metavar="N", help="images that a pass takes (default: %(default)s)"
    )
    parser.add_argument(
        "--workers", type=int, default=0, metavar="N", help="threads that read images ahead (default: %(default)s)"
    )
    add_device(parser)
    add_engine(parser)
    add_limits(parser)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Evaluate; 0 when done."""
    from ..evaluation.evaluate import evaluate
    from ..files import write_json
    from ..inference.predictor import load
    from ..pictures.plots import draw_precision_recall, require_matplotlib
    from .terminal import console, progress_bar, tell

    require_matplotlib()
    if arguments.batch_size < 1 or arguments.workers < 0:
        raise ConfigError("--batch-size must be 1 or more, --workers 0 or more")
    require_one_split(arguments.data)
    require_folder(arguments.out)
    predictor = load(
        arguments.model,
        device=arguments.device,
        precision=arguments.precision,
        engine=arguments.engine,
        detections=arguments.detections,
        max_pixels=arguments.max_pixels,
        on_message=tell,
    )
    if arguments.engine or predictor.engine.name != "torch":
        tell(f"engine: {predictor.engine.name}")
    dataset = read(
        arguments.data,
        images_dir=arguments.images,
        classes=arguments.classes or predictor.classes,
        some=not arguments.classes,
        rename=arguments.rename,
        strict=arguments.strict,
        max_pixels=arguments.max_pixels,
    )
    if dataset.classes != predictor.classes:
        raise CheckpointError(
            f"{arguments.model} knows {len(predictor.classes)} classes ({', '.join(predictor.classes[:5])}), "
            f"asked for {len(dataset.classes)} ({', '.join(dataset.classes[:5])}): pass --classes as it was trained"
        )
    with progress_bar() as progress:
        task = progress.add_task("evaluating", total=len(dataset.records))
        result = evaluate(
            predictor.engine,
            dataset,
            predictor.preprocess,
            batch_size=arguments.batch_size,
            workers=arguments.workers,
            max_pixels=arguments.max_pixels,
            on_images=lambda images: progress.advance(task, images),
        )
    write_json(arguments.out / "metrics.json", result.metrics)
    write_json(arguments.out / "detections.json", result.detections)
    write_json(arguments.out / "images.json", _listed(dataset))
    draw_precision_recall(arguments.out / "precision_recall.png", result.precision, dataset.classes)
    console.print(_table(result.metrics, len(dataset.records)))
    written = "metrics.json, detections.json, images.json and precision_recall.png"
    console.print(f"{written} in {arguments.out}", soft_wrap=True)
    return 0


def _table(metrics: dict[str, float], images: int) -> Table:
    """COCO's figures in percent, with what each means."""
    from rich.table import Table

    from .terminal import percent

    table = Table(title=f"{images} images, percent", box=None, header_style="bold", title_justify="left")
    table.add_column("figure")
    table.add_column("value", justify="right")
    table.add_column("meaning", style="dim")
    for name, value in metrics.items():
        table.add_row(name, percent(value), MEANINGS.get(name, ""))
    return table


def _listed(dataset: AnnotatedImages) -> dict[str, Any]:
    """Images and categories that the ids in detections.json mean, as COCO lists them."""
    from ..data.annotated import categories

    images = [
        {"id": each.image_id, "file_name": each.file_name, "width": each.width, "height": each.height}
        for each in dataset.records
    ]
    return {"images": images, "annotations": [], "categories": categories(dataset)}
