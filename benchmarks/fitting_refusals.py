"""Bad designs, each made on purpose: the engine must name what is wrong and give no number."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from benchmarks.rows import Row

if TYPE_CHECKING:
    import numpy as np

    from analysis.table import Table


def _table(n: np.ndarray, d: np.ndarray, loss: np.ndarray | None = None) -> Table:
    import numpy as np
    import pandas as pd

    from analysis.table import from_frame

    n, d = np.asarray(n, float), np.asarray(d, float)
    law = 1.7 + 300 * n**-0.33 + 900 * d**-0.36
    frame = pd.DataFrame({"N": n, "D": d, "C": 6 * n * d, "L": law if loss is None else loss})
    columns = {key: (key, "count") for key in "NDC"} | {"loss": ("L", "nats/token")}
    return from_frame(frame, columns=columns)


def _fits() -> dict[str, Callable[[], str]]:
    """Designs that a law cannot be fitted to: name, and what the fit says (empty: it fitted)."""
    import numpy as np

    from analysis.fit import fit

    size = np.geomspace(1e6, 1e9, 9)
    zig = np.tile([0.97, 1.0, 1.03], 3)
    tables = {
        "every run at D = 20 N": ("separable", _table(size, 20 * size)),
        "nearly one ray": ("separable", _table(size, 20 * size * zig)),
        "one D": ("separable", _table(size, np.full(9, 1e10))),
        "two values of D": ("separable", _table(size, np.tile([1e9, 1e10], 5)[:9])),
        "one N": ("skaling", _table(np.full(9, 1e8), size * 50)),
        "D = 20 N, joint powers": ("skaling", _table(size, 20 * size)),
        "D = 20 N, one exponent": ("shared_exponent", _table(size, 20 * size)),
        "three runs for three parameters": ("power_floor_N", _table(size[:3], size[:3] * 20)),
        "four runs for five parameters": ("separable", _table(size[:4], size[3::-1] * 20)),
        "two sizes for a curve": ("power_floor_N", _table(np.tile(size[:2], 3), size[:6])),
        "no repeats for the worth of repeats": ("repeats", None),
        "six runs for a break": ("broken1_N", _table(size[:6], size[:6] * 20)),
    }

    def said(form: str, table: Table | None) -> str:
        found = fit(form, _no_repeats() if table is None else table)
        return f"{found.status.value}: {found.reason}" if found.status.refused else ""

    return {name: (lambda f=form, t=table: said(f, t)) for name, (form, table) in tables.items()}


def _no_repeats() -> Table:
    import numpy as np
    import pandas as pd

    from analysis.table import from_frame

    n, d = (g.ravel() for g in np.meshgrid(np.geomspace(1e6, 1e9, 4), np.geomspace(1e8, 1e11, 4)))
    frame = pd.DataFrame({"N": n, "D": d, "U": d, "L": 1.7 + 300 * n**-0.33 + 900 * d**-0.36})
    columns = {key: (key, "count") for key in "NDU"} | {"loss": ("L", "nats/token")}
    return from_frame(frame, columns=columns)


def _bowls() -> dict[str, Callable[[], str]]:
    """isoFLOP budgets without a minimum."""
    import numpy as np

    from analysis.isoflop import isoflop

    def bowls(shape: Callable[[np.ndarray], np.ndarray], count: int = 7) -> Table:
        parts = [(c, np.geomspace(0.2, 5, count) * c**0.5 / 50) for c in (1e17, 1e18, 1e19, 1e20)]
        n = np.concatenate([values for _, values in parts])
        d = np.concatenate([c / 6 / values for c, values in parts])
        depth = np.concatenate([shape(np.log(values / (c**0.5 / 50))) for c, values in parts])
        return _table(n, d, 2.5 + depth)

    cases = {
        "concave bowls": bowls(lambda u: -0.02 * u**2),
        "losses that only fall": bowls(lambda u: 0.02 * (u - 4.0) ** 2),
        "losses that only rise": bowls(lambda u: 0.02 * (u + 4.0) ** 2),
        "two points a budget": bowls(lambda u: 0.02 * u**2, count=2),
    }

    def said(table: Table) -> str:
        made = isoflop(table)
        if made.road.standing.value == "found":
            return ""
        return "; ".join(sorted({mark.standing.value for mark in made.minima}))

    return {name: (lambda t=table: said(t)) for name, table in cases.items()}


def refusals() -> list[Row]:
    """How many bad designs are named, and each with what was said."""
    said = {name: ask() for name, ask in {**_fits(), **_bowls()}.items()}
    named = sum(bool(words) for words in said.values())
    head = Row("refusals: bad designs named", f"{named} of {len(said)}", "all", named == len(said))
    return [head, *(Row(f"  {name}", words or "fitted", "", None) for name, words in said.items())]
