"""The figure and the numbers of the answer, from the committed records.

python experiments/06_surface/figure.py
"""

import json
import math
import pathlib
import sys

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from analysis import compare, fit, fit_curves, optimum, read_curves, read_runs  # noqa: E402

RESULTS = HERE / "results"
TITLES = {"surface_dead_leaves": "dead leaves", "surface_eurosat": "EuroSAT"}
AT_BOUND = {"surface_dead_leaves": {"E": 0.0}}  # no floor is seen, and at its bound none forecasts
SHORT = 1302  # updates: a third of the longest run of EuroSAT
FORMS = ("separable", "skaling", "shared_exponent", "kaplan")


def panels(axes, study: pathlib.Path) -> None:
    """Loss against tokens, a line a size; and against FLOPs, where the isoFLOP grid is too.

    A dot is a run, a line goes through the means of seeds.
    """
    table = read_runs(study)
    left, right = axes
    for n in np.unique(table.variable("N")):
        runs = table.runs[table.runs["N"] == n]
        mean = runs.groupby("D_tokens")[["C_flops", "loss_nats_per_token"]].mean()
        (line,) = left.plot(mean.index, mean["loss_nats_per_token"], linewidth=1, label=f"{n:,.0f}")
        right.plot(mean["C_flops"], mean["loss_nats_per_token"], linewidth=1)
        for axis, along in ((left, "D_tokens"), (right, "C_flops")):
            dots = {"markersize": 2.5, "color": line.get_color()}
            axis.plot(runs[along], runs["loss_nats_per_token"], "o", **dots)
    grid = study.parent / f"{study.name}_isoflop"
    if grid.is_dir():
        runs = read_runs(grid).runs
        right.plot(
            runs["C_flops"], runs["loss_nats_per_token"], "kx", markersize=4, label="isoFLOP grid"
        )
        right.legend(frameon=False, fontsize=7)
    lengths = sorted(table.runs["D_tokens"].unique())
    left.set(xscale="log", xlabel="D, millions of tokens", title=TITLES[study.name])
    left.set_xticks(lengths, [f"{length / 1e6:.2g}" for length in lengths])
    left.minorticks_off()
    right.set(xscale="log", xlabel="C, counted FLOPs", title=TITLES[study.name])
    left.legend(frameon=False, fontsize=6, title="N (blocks)", title_fontsize=6)


def say(study: pathlib.Path) -> None:
    """The laws and what they forecast; the optimum by three roads."""
    table = read_runs(study)
    print(f"\n## {TITLES[study.name]}: {len(table)} runs\n")
    for name in FORMS:
        print(fit(name, table).summary())
    print(compare(table).summary())
    print(optimum(table).summary())
    whole_curves(study)


def whole_curves(study: pathlib.Path) -> None:
    """The law of curves with their schedules, and the ends that it forecasts of held-out runs.

    First the longest run of each size, then every cooldown of the four largest sizes, whose trunks
    at the constant rate stay.
    """
    curves, pinned = read_curves(study), AT_BOUND.get(study.name, {})
    print(fit_curves(curves, pinned=pinned).summary())
    large = curves.points["N"].isin(np.unique(curves.points["N"])[-4:])
    cooled = curves.points[large & ~curves.points["name"].str.contains("trunk")]["identity"]
    asked = {
        "the longest of each size": (curves.longest(), math.inf),
        f"the same from {SHORT} updates and less": (curves.longest(), SHORT),
        "cooldowns of the four largest": (cooled, math.inf),
    }
    for what, (names, most) in asked.items():
        kept, held = curves.split(set(names))
        kept = kept.select((kept.points["step"] <= most).to_numpy())
        found = fit_curves(kept, pinned=pinned)
        rows = found.forecast_of(held)
        rms = np.sqrt(np.mean(rows["log_error"] ** 2))
        print(f"{what}: {rms:.4f} rms (log), {rows['inside'].sum()} of {len(rows)} inside 90 %")
        if study.name == "surface_eurosat" and what == "the longest of each size":
            found.plot(RESULTS / "curves.svg", held=held)
    table = read_runs(study)
    longest = table.variable("D") > 0.9 * table.variable("D").max()
    law = fit("separable", table.select(~longest))
    at = np.stack([table.variable(name)[longest] for name in ("N", "D")], axis=-1)
    error = np.log(table.loss[longest]) - law.estimate.predict(at)
    rms = np.sqrt(np.mean(error**2))
    print(f"the longest by the separable law of the other ends: {rms:.4f} rms (log)")


def same_as_alone(study: pathlib.Path, alone: pathlib.Path) -> None:
    """Compare the parameters of branches with those of the runs that had no trunk."""
    ends = {}
    for folder in (study, alone):
        ends[folder] = {}
        for path in folder.glob("*/record.jsonl"):
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            ends[folder][rows[0]["identity"]] = (rows[0]["name"], rows[-1]["params_sha256"])
    for identity, (name, digest) in sorted(ends[alone].items(), key=lambda item: item[1]):
        same = ends[study][identity][1] == digest
        print(f"{name} alone: parameters {'equal bit for bit' if same else 'DIFFER'}")


def main() -> None:
    """Draw and print what is in results."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    studies = [RESULTS / name for name in TITLES if (RESULTS / name).is_dir()]
    shape = {"figsize": (7.2, 3.0 * len(studies)), "squeeze": False, "layout": "constrained"}
    figure, axes = pyplot.subplots(len(studies), 2, **shape)
    for row, study in zip(axes, studies, strict=True):
        panels(row, study)
        row[0].set_ylabel("validation loss, nats/token")
        say(study)
        alone = study.parent / f"{study.name}_alone"
        if alone.is_dir():
            same_as_alone(study, alone)
        grid = study.parent / f"{study.name}_isoflop"
        if grid.is_dir():
            print(optimum(read_runs(grid), flops="counted").summary())
    figure.savefig(RESULTS / "surface.svg")
    print(f"\nwrote {RESULTS.relative_to(HERE.parents[1]) / 'surface.svg'}")


if __name__ == "__main__":
    main()
