"""Runs of a study that no single law may hold, as groups, each with the --where that chooses it."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from analysis.errors import AnalysisError
from analysis.recipe import refuse_mixed

if TYPE_CHECKING:
    import pandas as pd

COMPARABLE = {
    "data": "data",
    "data_digest": "data digests",
    "tokenizer": "tokenizers",
    "tokenizer_identity": "tokenizer settings",
    "likelihood": "likelihoods",
    "weights": "evaluated weights",
    "examples": "numbers of validation examples",
}
FAMILY = {"family": "families"}
# Columns that may choose a group, those that people know first.
CHOOSERS = ("family", "tokenizer", "likelihood", "study", "data", "vocabulary", "dims_per_image")
CHOOSERS += ("tokens_per_image", "weights", "examples", "data_digest", "tokenizer_identity")
PLAIN = ("family", "tokenizer", "likelihood", "study")
MOST_CHOOSERS = 3
MOST_NAMED = 6
LONGEST = 60  # characters of a value that a person still types
COST_OF_A_FLAG = 12  # characters of a longer value that are better than one flag more


@dataclass(frozen=True)
class Group:
    """Runs that share all that is compared; `where` are the columns that choose just them."""

    where: Mapping[str, str]
    runs: pd.DataFrame

    @property
    def flags(self) -> str:
        """The choice as a command takes it."""
        pairs = (f"{column}={value}" for column, value in self.where.items())
        return " ".join(f"--where {shlex.quote(pair)}" for pair in pairs)

    @property
    def label(self) -> str:
        """The choice in few words."""
        return ", ".join(self.where.values())

    def __str__(self) -> str:
        count = len(self.runs)
        return f"{count} run{'s' * (count != 1)} {self.flags}"


def groups_of(runs: pd.DataFrame, columns: Sequence[str]) -> list[Group]:
    """The runs by their values in the columns, in the order of these values."""
    columns = [column for column in columns if runs[column].nunique() > 1]
    if not columns:
        return [Group({}, runs)]
    masks = [
        runs.index.isin(rows.index) for _, rows in runs.groupby(columns, sort=True, dropna=False)
    ]
    return [Group(_choice(runs, mask), runs[mask]) for mask in masks]


def _choice(runs: pd.DataFrame, mask: np.ndarray) -> dict[str, str]:
    """The shortest choice of few columns whose values hold for these runs and for no others."""
    first = runs[mask].iloc[0]
    known = [name for name in CHOOSERS if name in runs and runs[name].nunique() > 1]
    same = {name: runs[name].astype(str).to_numpy() == str(first[name]) for name in known}
    same = {name: found for name, found in same.items() if found[mask].all()}
    fit = [
        names
        for count in range(1, MOST_CHOOSERS + 1)
        for names in itertools.combinations(same, count)
        if (np.logical_and.reduce([same[name] for name in names]) == mask).all()
    ]

    def length(names: tuple[str, ...]) -> int:
        return sum(
            COST_OF_A_FLAG * (1 if name in PLAIN else 2) + len(str(first[name])) for name in names
        )

    chosen = min(fit, key=length) if fit else tuple(same)
    return {name: str(first[name]) for name in chosen}


def differing(runs: pd.DataFrame, columns: Mapping[str, str]) -> dict[str, str]:
    """Those of the columns that have more than one value, with their words."""
    return {
        column: what
        for column, what in columns.items()
        if column in runs and runs[column].nunique(dropna=False) > 1
    }


def side_by_side(runs: pd.DataFrame) -> str | None:
    """The --by that puts the groups into one plot; None where they are of different data."""
    if runs["data"].nunique() > 1:
        return None
    varied = [name for name in ("family", "tokenizer", "likelihood") if runs[name].nunique() > 1]
    return f"--by {varied[0]}" if varied else None


def refuse_incomparable(
    runs: pd.DataFrame, source: str, columns: Mapping[str, str] | None = None, more: str = ""
) -> None:
    """Refuse runs that differ in the columns; one line names the groups and what chooses each."""
    differ = differing(runs, columns or COMPARABLE | FAMILY)
    if not differ:
        return
    problem = f"losses are not comparable, {', '.join(differ.values())} differ"
    column = next(iter(differ))
    if len(differ) == 1 and runs[column].astype(str).map(len).max() <= LONGEST:
        refuse_mixed(runs, column, source=source, problem=problem)
    groups = groups_of(runs, list(differ))
    named = "; ".join(map(str, groups[:MOST_NAMED]))
    rest = f"; and {len(groups) - MOST_NAMED} more" if len(groups) > MOST_NAMED else ""
    raise AnalysisError(
        f"{source}: {problem}: {len(groups)} groups: {named}{rest}; choose one with its --where "
        f"(where={{...}}), or list them with `python -m analysis table {source}`{more}"
    )
