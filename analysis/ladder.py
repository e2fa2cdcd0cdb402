"""Which runs of a table a law is of: all, or for a law of one variable those at one D."""

from __future__ import annotations

import numpy as np

from analysis.form import distinct, one_ray
from analysis.table import COLUMN_OF, Table


def ladder_of(table: Table) -> Table:
    """The runs at the largest D that four sizes share; all runs where the table has no D."""
    return table.at_common_tokens() if COLUMN_OF["D"] in table.runs else table


def varies(table: Table, name: str) -> bool:
    """True where the table has two values of a variable, above zero all of them."""
    if COLUMN_OF[name] not in table.runs:
        return False
    values = table.variable(name)
    return bool((values > 0).all()) and distinct(np.log(values)) > 1


def move_together(table: Table) -> bool:
    """True where N and D lie on one ray (D = 20 N): one variable says what both are."""
    log_x = np.log(np.stack([table.variable("N"), table.variable("D")], axis=-1))
    return one_ray(log_x, ("N", "D")) is not None


def runs_for(variables: tuple[str, ...], table: Table) -> Table:
    """The runs for a law of these variables.

    A law of N or C alone is of one D, else of runs that differ in it alone: at one size, or along
    a ray of N and D.
    """
    if len(variables) > 1 or variables[0] == "D":
        return table
    free = varies(table, "D") and (not varies(table, "N") or move_together(table))
    return table if free else ladder_of(table)
