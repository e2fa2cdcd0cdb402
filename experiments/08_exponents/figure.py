"""The figure and the numbers of the answer, from the committed records or those of runs.

    python experiments/08_exponents/figure.py [FOLDER]

FOLDER (default: results beside this file) holds exponents_S0, exponents_S1 and so on.
"""

import itertools
import math
import pathlib
import sys

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from analysis import Fit, fit, optimum, read_runs  # noqa: E402

KINDS = {
    "S0": "S0: raster, categorical",
    "S1": "S1: masked, categorical",
    "S2": "S2: raster, binary",
    "S3": "S3: masked, binary (BiGR)",
    "dit": "DiT",
}
IMAGES = [4_096, 8_192, 16_384, 32_768, 65_536]
FORMS = ("separable", "skaling", "shared_exponent")


def hull(c_flops: np.ndarray, loss: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The runs that no cheaper one is as good as, by compute."""
    order = np.argsort(c_flops)
    c, found = c_flops[order], loss[order]
    best = found < np.concatenate([[np.inf], np.minimum.accumulate(found)[:-1]])
    return c[best], found[best]


def compute_at(c: np.ndarray, loss: np.ndarray, wanted: float) -> float:
    """The compute at which a frontier passes a loss, log-log between its runs; nan outside."""
    if not loss.min() <= wanted <= loss.max():
        return math.nan
    return float(np.exp(np.interp(-math.log(wanted), -np.log(loss), np.log(c))))


def ratios(frontiers: dict[str, tuple[np.ndarray, np.ndarray]], kind: str, base: str) -> str:
    """Compute of one kind over that of another for equal bits, at the ends of where both have."""
    (c, loss), (c0, loss0) = frontiers[kind], frontiers[base]
    low, high = max(loss.min(), loss0.min()), min(loss.max(), loss0.max())
    if low >= high:
        return f"{kind} over {base}: no loss that both reach"
    said = []
    for wanted in np.geomspace(high, low, 3):
        factor = compute_at(c, loss, wanted) / compute_at(c0, loss0, wanted)
        said.append(f"{factor:.2f} at {wanted:.3f}")
    return f"{kind} over {base}, compute for equal bits/dim: {', '.join(said)}"


def exponents(law: Fit) -> dict[str, np.ndarray]:
    """Draws of a, b and of the reducible loss on the compute frontier, C^-(a b / (a + b))."""
    drawn = law.form.public(law.draws.theta, law.estimate.scale)
    a, b = drawn["a"], drawn["b"]
    return {"N": a, "D": b, "C": a * b / (a + b)}


def interval(draws: np.ndarray) -> str:
    """Median and 90 %."""
    low, middle, high = np.percentile(draws, [5, 50, 95])
    return f"{middle:.3f} [{low:.3f}, {high:.3f}]"


def compared(drawn: dict[str, dict[str, np.ndarray]]) -> None:
    """Print differences of exponents, pair by pair: the kinds' draws are independent."""
    for one, other in itertools.combinations(drawn, 2):
        said = []
        for name in drawn[one]:
            count = min(len(drawn[one][name]), len(drawn[other][name]))
            said.append(f"{name} {interval(drawn[other][name][:count] - drawn[one][name][:count])}")
        print(f"exponents of {other} minus {one}: {', '.join(said)}")


def main() -> None:
    """Draw and print what is there."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "results"
    wanted = [f"exponents_{kind}" for kind in KINDS]
    if not any((folder / name).is_dir() for name in wanted):
        raise SystemExit(f"error: {folder}: holds no {', '.join(wanted)}")
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(7.6, 3.4), layout="constrained")
    frontiers, drawn = {}, {}
    for number, (kind, title) in enumerate(KINDS.items()):
        if not (folder / f"exponents_{kind}").is_dir():
            continue
        table = read_runs(folder / f"exponents_{kind}")
        columns = (table.runs[name] for name in ("bits_per_dim", "C_flops"))
        loss, c_flops = (np.asarray(column, float) for column in columns)
        frontiers[kind] = hull(c_flops, loss)
        color = f"C{number}"
        left.plot(c_flops, loss, "o", markersize=2.5, color=color, alpha=0.5)
        left.plot(*frontiers[kind], "-", linewidth=1.2, color=color, label=title)
        print(f"\n## {title}: {len(table)} runs, {loss.min():.4f} bits/dim at best\n")
        for form in FORMS:
            print(fit(form, table).summary())
        print(optimum(table).summary())
        images = table.runs["D_tokens"] / table.runs["tokens_per_image"]
        for size, style in ((table.runs["N"].max(), "o-"), (table.runs["N"].min(), "o:")):
            of = (table.runs["N"] == size).to_numpy()
            order = np.argsort(images[of].to_numpy())
            along = images[of].to_numpy()[order], loss[of][order]
            right.plot(*along, style, color=color, markersize=2.5, linewidth=1)
        law = fit("separable", table)
        if law.status.refused:
            continue
        drawn[kind] = exponents(law)
        said = (f"{name} {interval(each)}" for name, each in drawn[kind].items())
        print(f"exponents of {kind}: {', '.join(said)}; residual {law.residual_sd:.3f} (log)")
    compared(drawn)
    for one, other in itertools.combinations(frontiers, 2):
        print(ratios(frontiers, other, one))
    left.set(xscale="log", yscale="log", xlabel="C, counted FLOPs", ylabel="bits/dim")
    left.legend(frameon=False, fontsize=6)
    right.set(xscale="log", xlabel="images; full: largest size, dotted: smallest", ylim=(1, 2.4))
    right.set_xticks(IMAGES, [f"{each:,}" for each in IMAGES], fontsize=7)
    right.minorticks_off()
    left.set_ylim(1, 5)
    left.set_yticks([1, 1.2, 1.5, 2, 3, 4], ["1", "1.2", "1.5", "2", "3", "4"])
    left.minorticks_off()
    (HERE / "results").mkdir(exist_ok=True)
    figure.savefig(HERE / "results" / "exponents.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
