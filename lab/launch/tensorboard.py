"""TensorBoard event files beside the record, through clu: an extra, for it needs TensorFlow."""

import pathlib
from collections.abc import Callable

from lab.core.errors import LabError
from lab.train.loop import Progress


def event_writer(directory: pathlib.Path) -> Callable[[Progress], None]:
    """A watcher that writes losses to <directory>/events; LabError where the extra is missing."""
    try:
        from clu import metric_writers
    except ImportError as error:
        raise LabError(
            f"config.execution.tensorboard = True: {error.name} is missing; "
            "pip install tensorflow tensorboard, or leave the field False: "
            "record.jsonl holds the same numbers"
        ) from error
    writer = metric_writers.SummaryWriter(str(directory / "events"))

    def write(progress: Progress) -> None:
        kind = "validation" if progress.evaluated else "train"
        writer.write_scalars(progress.step, {f"{kind}/loss ({progress.loss_unit})": progress.loss})
        writer.flush()

    return write
