"""The tables and the figure of the answer, from the committed records or those of runs.

    python experiments/09_stability/figure.py [FOLDER]

FOLDER (default: results beside this file) holds the study's folder.
"""

import dataclasses
import json
import math
import pathlib
import sys

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
WINDOW, THRESHOLD, APART = 32, 6.0, 10  # updates, robust standard deviations, updates
FACTORS = {
    "rate": lambda c: c["optimizer"]["learning_rate"],
    "depth": lambda c: c["model"]["depth"],
    "warm-up": lambda c: int(str(c["optimizer"]["warmup"]).split()[0]),
    "QK-norm": lambda c: c["model"]["qk_norm"],
    "z-loss": lambda c: c["model"]["z_loss"],
}


@dataclasses.dataclass(frozen=True)
class Run:
    """One run: its factors, the loss of every update, and the largest top share by step."""

    factors: dict[str, float]
    losses: np.ndarray
    shares: dict[int, float]
    diverged: bool

    @property
    def spikes(self) -> list[int]:
        """Updates at which a spike begins."""
        return spikes_of(self.losses)

    @property
    def bad(self) -> bool:
        """Whether it spiked or diverged."""
        return self.diverged or bool(self.spikes)


def spikes_of(losses: np.ndarray) -> list[int]:
    """Where a loss is far above the median of those before it; followers are of the same spike."""
    found: list[int] = []
    for step in range(WINDOW, len(losses)):
        before = losses[step - WINDOW : step]
        middle = np.median(before)
        spread = 1.4826 * np.median(np.abs(before - middle))
        if losses[step] > middle + THRESHOLD * spread and (not found or step - found[-1] > APART):
            found.append(step)
    return found


def read(folder: pathlib.Path) -> list[Run]:
    """Every ended run."""
    runs = []
    for path in sorted(folder.glob("*/record.jsonl")):
        config = json.loads((path.parent / "config.json").read_text(encoding="utf-8"))["config"]
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        key = rows[0]["training_loss"]["key"]
        losses = [float(row[key]) for row in rows if row["kind"] == "train"]
        shares = {
            row["step"]: max(v for name, v in row.items() if name.startswith("qk_top_share_"))
            for row in rows
            if row["kind"] == "evaluation"
        }
        if rows[-1]["kind"] == "end":
            factors = {name: of(config) for name, of in FACTORS.items()}
            diverged = rows[-1]["status"] != "finished"
            runs.append(Run(factors, np.array(losses), shares, diverged))
    return runs


def table(runs: list[Run]) -> None:
    """Bad runs by each factor, of all runs and by rate; paired where only that factor differs."""
    rates = sorted({run.factors["rate"] for run in runs})
    print("| factor | value | bad runs | " + " | ".join(f"at {rate:g}" for rate in rates) + " |")
    print("|---|---|---|" + "---|" * len(rates))
    for name in FACTORS:
        for value in sorted({run.factors[name] for run in runs}):
            chosen = [run for run in runs if run.factors[name] == value]
            cells = []
            for rate in rates:
                at = [run for run in chosen if run.factors["rate"] == rate]
                cells.append(f"{sum(r.bad for r in at)} of {len(at)}" if at else "")
            bad = sum(run.bad for run in chosen)
            print(f"| {name} | {value:g} | {bad} of {len(chosen)} | {' | '.join(cells)} |")


def warning(runs: list[Run]) -> None:
    """The largest share before the first spike, against good runs of the same depth then."""
    higher = total = 0
    for run in runs:
        if not run.bad or run.factors["QK-norm"]:
            continue
        first = run.spikes[0] if run.spikes else len(run.losses)
        before = [step for step in run.shares if 0 < step <= first]
        if not before:
            continue
        step = max(before)
        good = [
            other.shares[step]
            for other in runs
            if not other.bad
            and not other.factors["QK-norm"]
            and other.factors["depth"] == run.factors["depth"]
            and step in other.shares
        ]
        if good:
            total += 1
            higher += run.shares[step] > np.median(good)
    print(f"\ntop share before the first spike above the median of good runs: {higher} of {total}")


def draw(runs: list[Run], path: pathlib.Path) -> None:
    """Losses and the largest top share, a column a rate."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rates = sorted({run.factors["rate"] for run in runs})
    shape = {"figsize": (7.6, 4.4), "squeeze": False, "layout": "constrained", "sharex": True}
    figure, grid = pyplot.subplots(2, len(rates), **shape)
    for column, rate in zip(grid.T, rates, strict=True):
        for run in (run for run in runs if run.factors["rate"] == rate):
            color = "C0" if run.factors["QK-norm"] else "C3"
            style = "-" if run.factors["depth"] == 2 else ":"
            column[0].plot(run.losses, style, color=color, linewidth=0.6, alpha=0.8)
            column[1].plot(
                *zip(*run.shares.items(), strict=True), style, color=color, linewidth=0.8
            )
        column[0].set(title=f"rate {rate:g}", yscale="log")
        column[1].set(xlabel="update", ylim=(0, 1))
    grid[0, 0].set_ylabel("training loss, nats/token")
    grid[1, 0].set_ylabel("largest top share of a head")
    figure.suptitle("red: plain, blue: QK-norm; full: 2 blocks, dotted: 8", fontsize=8)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Print and draw."""
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "results"
    runs = read(folder / "stability")
    table(runs)
    spikes = [len(run.spikes) for run in runs]
    print(
        f"\n{sum(run.diverged for run in runs)} diverged, {sum(spikes)} spikes in {len(runs)} runs"
    )
    warning(runs)
    best = {}
    for run in runs:
        end = float(np.mean(run.losses[-50:])) if not run.diverged else math.inf
        best.setdefault(run.factors["rate"], []).append(end)
    for rate, ends in sorted(best.items()):
        print(f"rate {rate:g}: mean loss of the last 50 updates {min(ends):.3f} to {max(ends):.3f}")
    draw(runs, HERE / "results" / "stability.svg")


if __name__ == "__main__":
    main()
