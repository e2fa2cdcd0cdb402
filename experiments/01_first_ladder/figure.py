"""The figure and the table of the answer, from the committed records.

python experiments/01_first_ladder/figure.py
"""

import pathlib
import sys

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from analysis.differences import neighbours  # noqa: E402
from analysis.forecast import judge, read_frozen  # noqa: E402
from analysis.laws import law_of_forecast  # noqa: E402
from analysis.losses import loss_named  # noqa: E402
from analysis.table import read_runs  # noqa: E402

RESULTS = HERE / "results"
TITLES = {
    "first_ladder_dead_leaves": "dead leaves, 8 x 8 RGB",
    "first_ladder_fashion_mnist": "Fashion-MNIST, 14 x 14 grey",
    "first_ladder_eurosat": "EuroSAT, 8 x 8 RGB",
}


def panel(axis, study: pathlib.Path) -> str:
    """Draw one study; returns the sentence of its forecast."""
    table, frozen = read_runs(study), read_frozen(study / "forecast.json")
    law = law_of_forecast(frozen, table, loss=loss_named("huber"), level=0.9)
    if law is None or law.fit is None:
        raise SystemExit(f"{study}: the frozen forecast's runs are not all here")
    verdict = judge(frozen, table)
    ladder = table.at_common_tokens().runs
    n = np.geomspace(ladder["params_blocks"].min(), frozen.variables["N"], 60)
    band = law.fit.predict(N=n, level=0.9).frame()
    axis.fill_between(
        n, band["low"], band["high"], alpha=0.2, linewidth=0, label="90 % of new runs"
    )
    axis.plot(n, band["loss"], linewidth=1)
    fitted = ladder["identity"].isin(frozen.identities)
    for chosen, marker, label in ((fitted, "o", "fitted"), (~fitted, "x", "trained afterwards")):
        runs = ladder[chosen]
        axis.plot(runs["params_blocks"], runs["loss_nats_per_token"], marker, label=label)
    axis.set(xscale="log", xlabel="N (blocks)", title=TITLES[study.name])
    return verdict.sentence


def main() -> None:
    """Draw every study that is in results, print sentences and paired differences."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    studies = [RESULTS / name for name in TITLES if (RESULTS / name).is_dir()]
    figure, axes = pyplot.subplots(
        1, len(studies), figsize=(3.6 * len(studies), 3.2), squeeze=False, layout="constrained"
    )
    for axis, study in zip(axes[0], studies, strict=True):
        print(f"\n{TITLES[study.name]}\n{panel(axis, study)}")
        for found in neighbours(read_runs(study)):
            print(
                f"  {found.first} - {found.second}: {found.difference_nats_per_token:.4f} "
                f"± {found.se_nats_per_token:.4f} nats/token, {found.z:.1f} standard errors"
            )
    axes[0][0].set_ylabel("validation loss, nats/token")
    axes[0][0].legend(frameon=False, fontsize=8)
    figure.savefig(RESULTS / "ladder.svg")
    print(f"\nwrote {RESULTS.relative_to(HERE.parents[1]) / 'ladder.svg'}")


if __name__ == "__main__":
    main()
