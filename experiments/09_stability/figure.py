"""The tables and the figure of the answer, from what is committed or from runs.

    python experiments/09_stability/figure.py [runs/stability]

What is needed of the runs' records (7 MB) is kept in results/stability.jsonl: factors, the loss of
every update, the largest top share at each evaluation, and how the run ended.
"""

import dataclasses
import json
import math
import pathlib
import sys

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
KEPT = HERE / "results" / "stability.jsonl"
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
    def end(self) -> float:
        """The mean loss of the last 50 updates."""
        return math.inf if self.diverged else float(np.mean(self.losses[-50:]))

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
        key = rows[0].get("training_loss", {"key": "loss_nats_per_token"})["key"]
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


def write(runs: list[Run], path: pathlib.Path) -> None:
    """Keep the runs, losses to the fifth digit."""
    rows = [
        {
            "factors": run.factors,
            "losses": [float(f"{loss:.5g}") for loss in run.losses],
            "shares": {str(step): float(f"{share:.5g}") for step, share in run.shares.items()},
            "diverged": run.diverged,
        }
        for run in runs
    ]
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n", encoding="utf-8")


def kept(path: pathlib.Path) -> list[Run]:
    """The runs that were kept."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [
        Run(
            row["factors"],
            np.array(row["losses"]),
            {int(step): share for step, share in row["shares"].items()},
            row["diverged"],
        )
        for row in rows
    ]


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


def ends(runs: list[Run]) -> None:
    """The loss at the end by rate, depth and QK-norm: mean and range over warm-ups and z-losses."""
    print("\n| loss at the end | 2 blocks | with QK-norm | 8 blocks | with QK-norm |")
    print("|---|---|---|---|---|")
    for rate in sorted({run.factors["rate"] for run in runs}):
        cells = []
        for depth, normed in ((2, False), (2, True), (8, False), (8, True)):
            wanted = {"rate": rate, "depth": depth, "QK-norm": normed}
            of = [r.end for r in runs if wanted.items() <= r.factors.items()]
            cells.append(f"{np.mean(of):.3f} ({min(of):.3f} to {max(of):.3f})")
        print(f"| rate {rate:g} | {' | '.join(cells)} |")


def warned(runs: list[Run]) -> None:
    """The check that was written down: the largest share at the evaluation before the first spike.

    Of plain runs that spike, against plain runs of that depth that do not.
    """
    plain = [run for run in runs if not run.factors["QK-norm"]]
    higher = total = 0
    for run in (run for run in plain if run.spikes):
        step = max(step for step in run.shares if step <= run.spikes[0])
        good = [
            other.shares[step]
            for other in plain
            if not other.bad and other.factors["depth"] == run.factors["depth"]
        ]
        total += 1
        higher += run.shares[step] > np.median(good)
    print(f"\ntop share before the first spike above the median of good runs: {higher} of {total}")


def foretold(runs: list[Run], step: int) -> None:
    """Rank correlation of the top share at a step with the loss at the end, in like runs."""
    from scipy.stats import spearmanr

    for rate in sorted({run.factors["rate"] for run in runs}):
        for normed in (False, True):
            wanted = {"rate": rate, "QK-norm": normed}
            of = [run for run in runs if wanted.items() <= run.factors.items()]
            found = spearmanr([run.shares[step] for run in of], [run.end for run in of])
            what = f"rate {rate:g}, {'QK-norm' if normed else 'plain'}"
            print(f"{what}: rank correlation {found.statistic:+.2f} ({len(of)} runs)")


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
        column[0].set(title=f"rate {rate:g}", ylim=(1.2, 3.6))
        column[1].set(xlabel="update", ylim=(0, 1))
    grid[0, 0].set_ylabel("training loss, nats/token")
    grid[1, 0].set_ylabel("largest top share of a head")
    figure.suptitle("red: plain, blue: QK-norm; full: 2 blocks, dotted: 8", fontsize=8)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Print and draw."""
    if len(sys.argv) > 1:
        write(read(pathlib.Path(sys.argv[1])), KEPT)
    runs = kept(KEPT)
    table(runs)
    spikes = [len(run.spikes) for run in runs]
    print(
        f"\n{sum(run.diverged for run in runs)} diverged, {sum(spikes)} spikes in {len(runs)} runs"
    )
    ends(runs)
    warned(runs)
    print("\nlargest top share at update 40 against the loss at the end:")
    foretold(runs, 40)
    draw(runs, HERE / "results" / "stability.svg")


if __name__ == "__main__":
    main()
