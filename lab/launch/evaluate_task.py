"""One task of an evaluation: what it is of, what its numbers depend on, and the row it becomes."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lab.core.errors import Stopped
from lab.core.quality import key_of
from lab.launch.evaluate_data import ImageSet
from lab.sampling.settings import Settings
from lab.train.trained_generator import Trained

if TYPE_CHECKING:
    from lab.extractors.extractor import Extractor


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """One line of quality.jsonl before it is measured."""

    trained: Trained
    what: str  # a name of lab/launch/evaluate_plan.py
    settings: Mapping[str, Any]  # JSON: all that defines the numbers and stands nowhere else
    reference: ImageSet  # what samples are judged against, or what is looked at
    extractor: "Extractor | None" = None
    sampler: Settings | None = None
    train: ImageSet | None = None  # what a probe learns from
    real: ImageSet | None = None  # real images that are judged like samples

    @property
    def directory(self) -> pathlib.Path:
        """The run directory."""
        return self.trained.directory

    @functools.cached_property
    def row(self) -> dict[str, Any]:
        """The line without its values."""
        return {
            "what": self.what,
            "step": self.trained.step,
            "weights": self.trained.weights,
            "settings": dict(self.settings),
            "extractor": None if self.extractor is None else dict(self.extractor.about),
            "reference": self.reference.about(),
        }

    @functools.cached_property
    def key(self) -> str:
        """What the line is known by."""
        return key_of(self.row)

    @property
    def title(self) -> str:
        """What it is, in a few words."""
        by = f" by {self.extractor.name}" if self.extractor is not None else ""
        return f"{self.trained.run.name or self.directory.name} {self.what}{by}"


@dataclasses.dataclass(frozen=True)
class Tools:
    """What every measurement is given: the size of a batch, and whom to tell and to ask."""

    batch: int
    show: Callable[[str, int, int | None], None]  # what is done, how much of how much
    stops: Callable[[], bool]
    warn: Callable[[str], None]

    def between(self) -> None:
        """Raise Stopped where a signal has come: between batches there is nothing to lose."""
        if self.stops():
            raise Stopped

    def told(self, what: str) -> Callable[[int, int | None], None]:
        """A progress of one thing, which also stops where that is wanted."""

        def tell(done: int, total: int | None) -> None:
            self.between()
            self.show(what, done, total)

        return tell


def bounded(mean: float, se: float, *, level: float) -> dict[str, float | str]:
    """A mean with its normal interval, as it stands in a row."""
    import statistics

    quantile = statistics.NormalDist().inv_cdf(0.5 + level / 2)
    low, high = mean - quantile * se, mean + quantile * se
    return {"value": mean, "low": low, "high": high, "level": level, "quantile": quantile}


def labelled(values: Sequence[Any], **more: Any) -> list[dict[str, Any]]:
    """Dataclasses of values as rows hold them."""
    return [{**dataclasses.asdict(value), "layer": None, **more} for value in values]
