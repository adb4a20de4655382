"""Who wants to know how a training goes."""

from __future__ import annotations


class Watcher:
    """Is told of everything, and does nothing with it: derive from it, and define the methods that you need."""

    def on_note(self, line: str) -> None:
        """A sentence for people: what the training starts from, how long it is, what will be different."""

    def on_step(self, step: int, total: int, losses: dict[str, float]) -> None:
        """A step of the optimiser is done.

        Args:
            step, total: its number, from 1 on, and how many there are.
            losses: `total` and each of its terms, means over all processes.
        """

    def on_evaluated_images(self, done: int, total: int) -> None:
        """An evaluation has come so far."""

    def on_evaluation(self, epoch: int, metrics: dict[str, float]) -> None:
        """An evaluation is done.

        Args:
            epoch: at whose end.
            metrics: COCO's figures in 0..1, and `loss/...` on validation images.
        """
