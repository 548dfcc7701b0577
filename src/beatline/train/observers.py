"""Who hears what a run says about itself: a log of JSON lines, TensorBoard, and whoever comes later."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from beatline.core.console import RunLog


class Observer:
    """Hears of every step and validation, in the first of several processes; add it to
    `Trainer.observers`.
    """

    def begin(self, step: int) -> None:
        """The run starts, or goes on, after so many steps; what was heard of later steps is void."""

    def hear(self, event: str, step: int, epoch: int, figures: Mapping[str, float]) -> None:
        """What was measured.

        Args:
            event: `step`, with loss, lr and grad_norm; or `validation`, with the objective's figures.
            step: Steps done so far.
            epoch: From 0.
        """

    def end(self) -> None:
        """The run ends, or is stopped."""


class JsonLines(Observer):
    """The training log, a line of JSON for each event; see `RunLog` for what a resume needs of it."""

    def __init__(self, path: Path):
        self.path = path
        self.file: RunLog | None = None

    def restore(self, mark: dict[str, Any] | None) -> None:
        """Opens the log as it was at a mark; None starts afresh.

        Raises:
            UserError: See `RunLog`.
        """
        self.file = RunLog(self.path, mark)

    def mark(self) -> dict[str, Any]:
        """How long the log is now and its hash, on disk: to be kept in a checkpoint."""
        assert self.file is not None, "restore comes first"
        return self.file.mark()

    def hear(self, event: str, step: int, epoch: int, figures: Mapping[str, float]) -> None:
        assert self.file is not None, "restore comes first"
        self.file.write(event, step=step, epoch=epoch, **figures)

    def end(self) -> None:
        if self.file is not None:
            self.file.close()


class TensorBoard(Observer):
    """Curves for TensorBoard, `train/<figure>` and `validation/<figure>`."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.writer: Any = None

    def begin(self, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(self.folder), purge_step=step + 1)

    def hear(self, event: str, step: int, epoch: int, figures: Mapping[str, float]) -> None:
        group = "train" if event == "step" else event
        for name, value in figures.items():
            self.writer.add_scalar(f"{group}/{name}", value, step)

    def end(self) -> None:
        if self.writer is not None:
            self.writer.close()
