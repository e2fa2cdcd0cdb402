"""The figure and the numbers of the second part, beyond the step of masked models.

    python experiments/08_exponents/beyond.py [FOLDER]

FOLDER (default: results beside this file) holds exponents_beyond_S0 and so on.
"""

import itertools
import pathlib
import sys

import numpy as np
from figure import (  # pyrefly: ignore
    HERE,
    KINDS,
    compared,
    exponents,
    hull,
    interval,
    ratios,
)

from analysis import Fit, Table, fit, read_runs
from analysis.forms import power_floor

STUDY = "exponents_beyond_"
STYLES = ("-", "--", "-.", ":")  # the largest size first
LATE_TOKENS = 130_000 * 64
FLOORS = (1.8, 1.86, 1.92)  # nats/token, common to both kinds
FORMS = ("separable", "skaling", "shared_exponent", "kaplan")


def by_end(table: Table) -> dict[tuple[float, float], np.ndarray]:
    """Bits a dimension of the seeds, by block parameters and images."""
    runs = table.runs
    images = (runs["D_tokens"] / runs["tokens_per_image"]).round()
    found: dict[tuple[float, float], list[float]] = {}
    for n, seen, bits in zip(runs["N"], images, runs["bits_per_dim"], strict=True):
        found.setdefault((float(n), float(seen)), []).append(float(bits))
    return {key: np.asarray(values) for key, values in sorted(found.items())}


def say_ends(ends: dict[tuple[float, float], np.ndarray]) -> None:
    """Mean and standard deviation over seeds of each size and length, and the pooled one."""
    for n in sorted({n for n, _ in ends}):
        of = {seen: values for (size, seen), values in ends.items() if size == n}
        cells = [f"{seen:,.0f}: {v.mean():.4f} ({len(v)})" for seen, v in of.items()]
        print(f"N {n:,.0f}: {'; '.join(cells)}")
    several = [np.log(v) for v in ends.values() if len(v) > 1]
    if several:
        freedom = sum(len(v) - 1 for v in several)
        pooled = np.sqrt(sum(np.sum((v - v.mean()) ** 2) for v in several) / freedom)
        print(f"standard deviation of a seed: {pooled:.4f} (log, {freedom} degrees of freedom)")


def along_data(kind: str, table: Table) -> None:
    """L(D) at each size: E + B D^-b."""
    for n in np.unique(table.variable("N")):
        law = fit(power_floor("D"), table.select(table.variable("N") == n))
        print(f"{kind} at N {n:,.0f}: {law.summary()}")


def laws(kind: str, table: Table, drawn: dict[str, dict[str, dict[str, np.ndarray]]]) -> None:
    """The laws of the two variables, where there are sizes enough for them."""
    if len(np.unique(table.variable("N"))) < 3:
        print(f"{kind}: too few sizes for L(N, D)")
        return
    whole = {form: fit(form, table) for form in FORMS}
    for law in whole.values():
        print(law.summary())
    late = table.variable("D") > LATE_TOKENS
    ways = {
        "separable": whole["separable"],
        "separable, 131,072 images and more": fit("separable", table.select(late)),
        "skaling": whole["skaling"],
    }
    ways |= {f"separable, E = {e:g}": fit("separable", table, pinned={"E": e}) for e in FLOORS}
    for way, law in ways.items():
        if law.status.refused:
            print(f"{kind}, {way}: {law.status}")
            continue
        found = exponents(law) if way != "skaling" else outer_exponents(law)
        drawn.setdefault(way, {})[kind] = found
        said = (f"{name} {interval(each)}" for name, each in found.items())
        print(
            f"exponents of {kind}, {way}: {', '.join(said)}; residual {law.residual_sd:.4f} (log)"
        )


def outer_exponents(law: Fit) -> dict[str, np.ndarray]:
    """Those of the reducible loss far from the other variable, A (N^-a + R D^-b)^k."""
    of = law.form.public(law.draws.theta, law.estimate.scale)
    a, b, k = of["a"], of["b"], of["k"]
    return {"N": a * k, "D": b * k, "C": k * a * b / (a + b)}


def main() -> None:
    """Draw and print what is there."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "results"
    kinds = [kind for kind in KINDS if (folder / f"{STUDY}{kind}").is_dir()]
    if not kinds:
        raise SystemExit(f"error: {folder}: holds no {STUDY}S0 and so on")
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(7.6, 3.4), layout="constrained")
    frontiers, drawn = {}, {}  # exponents by way of fitting, then kind
    for number, kind in enumerate(kinds):
        table, color = read_runs(folder / f"{STUDY}{kind}"), f"C{number}"
        print(f"\n## {KINDS[kind]}: {len(table)} runs\n")
        ends = by_end(table)
        say_ends(ends)
        laws(kind, table, drawn)
        along_data(kind, table)
        runs = table.runs.groupby(["N", "D_tokens"])[["C_flops", "bits_per_dim"]].mean()
        c_flops, bits = (runs[name].to_numpy(float) for name in ("C_flops", "bits_per_dim"))
        frontiers[kind] = hull(c_flops, bits)
        left.plot(c_flops, bits, "o", markersize=2.5, color=color, alpha=0.5)
        left.plot(*frontiers[kind], "-", linewidth=1.2, color=color, label=KINDS[kind])
        sizes = sorted({n for n, _ in ends}, reverse=True)
        for n, style in zip(sizes, STYLES[: len(sizes)], strict=True):
            of = {seen: v for (size, seen), v in ends.items() if size == n}
            low, middle, high = np.transpose([[v.min(), v.mean(), v.max()] for v in of.values()])
            bars = np.stack([middle - low, high - middle])
            right.errorbar(list(of), middle, bars, fmt=style, color=color, linewidth=1, capsize=2)
    for way, kinds_drawn in drawn.items():
        print(f"\n{way}:")
        compared(kinds_drawn)
    for one, other in itertools.combinations(frontiers, 2):
        print(ratios(frontiers, other, one))
    left.set(xscale="log", yscale="log", xlabel="C, counted FLOPs", ylabel="bits/dim")
    left.legend(frameon=False, fontsize=6)
    right.set(xscale="log", yscale="log", xlabel="images; a line a size, bars: all seeds")
    for axes in (left, right):
        axes.set_yticks([1, 1.1, 1.2, 1.3, 1.4, 1.5], ["1", "1.1", "1.2", "1.3", "1.4", "1.5"])
        axes.minorticks_off()
    seen = [32_768, 65_536, 131_072, 262_144, 524_288]
    right.set_xticks(seen, [f"{each:,}" for each in seen], fontsize=6)
    figure.savefig(HERE / "results" / "beyond.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
