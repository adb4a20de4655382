"""`fpnkit train` in which something happens to one process: torchrun faulty.py FAULT WORDS.

FAULT is `nan`: the loss of rank 1 is not finite in the second step; `sigterm`: rank 1 gets SIGTERM in the second step;
`vanish`: rank 1 cannot read an image.
"""

import os
import signal
import sys

import torch

from fpnkit.cli import main
from fpnkit.detectors import FasterRCNN
from fpnkit.training.run_folder import RunFolder

RunFolder.draw_curves = RunFolder.draw_batch = RunFolder.draw_evaluation = lambda self, *given: None
fault, hit, steps = sys.argv[1], os.environ.get("RANK") == "1", []
losses = FasterRCNN.losses


def faulty(self: FasterRCNN, batch, targets) -> dict:
    steps.append(len(batch))
    found = losses(self, batch, targets)
    if hit and len(steps) >= 2:
        if fault == "nan":
            return {**found, "rpn_box": found["rpn_box"] * torch.nan}
        if fault == "sigterm" and len(steps) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
    return found


FasterRCNN.losses = faulty
if fault == "vanish" and hit:
    from fpnkit.data import augment
    from fpnkit.errors import DataError

    def vanished(*given, **named) -> None:
        raise DataError("2.png: no such file")

    augment.record_tensor = vanished
    from fpnkit.data import loader

    loader.record_tensor = vanished
sys.exit(main(sys.argv[2:]))
