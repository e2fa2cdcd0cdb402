"""The runs whose records lie under experiments/*/results are those that the sweeps plan today."""

import collections
import json
import pathlib

import pytest

from lab.core.branches import trunk_of
from lab.core.config import RunConfig, identity
from lab.launch.sweep import load_sweep

EXPERIMENTS = pathlib.Path(__file__).resolve().parents[2] / "experiments"
STUDIES = sorted({path.parent.parent for path in EXPERIMENTS.glob("*/results/*/*/config.json")})
# The sweeps' arguments where there are any.
ARGUMENTS = {
    "01_first_ladder": ["dead_leaves", "eurosat", "fashion_mnist"],
    "02_tokens": ["tokenizers", "generators", "adversarial"],
    "03_families": ["rates", "families"],
    "04_quality": ["extractors", "sizes"],
    "06_surface": [
        *("dead_leaves", "dead_leaves,1,alone", "dead_leaves,1,isoflop"),
        *("dead_leaves,1,seeds", "dead_leaves,1,isoflop_seeds", "eurosat"),
    ],
    "07_transfer": ["width", "depth"],
    "08_exponents": ["rates", "surface", "beyond", "beyond_rates"],
    "11_splits": [
        *("rates", "seeds", "surface"),
        *("surface,1,binary-16-1", "surface,1,binary-20-0"),
    ],
    "12_scans": ["rates", "pixels", "larger", "longer", "codes"],
}
# How many runs, or trunks, have no record.
MISSING = {
    "first_ladder_dead_leaves": 4,  # recorded before its lengths were branches: no trunks
    "first_ladder_eurosat": 4,
    "first_ladder_fashion_mnist": 4,
    "03_families_rates": 3,  # S1-any came after the trial of rates
    "exponents_beyond_S1": 20,  # cut by time, as the answers of 08 and 11 say
    "exponents_beyond_S2": 42,
    "exponents_beyond_S3": 51,
    "splits_rates": 1,
    "splits_seeds": 2,
}
JUDGED = EXPERIMENTS / "04_quality" / "results" / "03_families"  # evaluations of runs of 03


@pytest.fixture(scope="module")
def planned():
    """Identities by study, of runs and of the trunks that they branch from."""
    found = collections.defaultdict(set)
    for path in EXPERIMENTS.glob("*/sweep.py"):
        for argument in ARGUMENTS.get(path.parent.name, [""]):
            for run in load_sweep(f"{path}:{argument}" if argument else str(path), {}):
                found[run.study].add(identity(run))
                if isinstance(run, RunConfig) and run.execution.trunk:
                    found[run.study].add(identity(trunk_of(run)))
    return found


@pytest.mark.parametrize("folder", STUDIES, ids=lambda path: "-".join(path.parts[-3::2]))
def test_records_are_of_planned_runs(planned, folder):
    kept = {path.parent.name for path in folder.glob("*/config.json")}
    stated = {json.loads((folder / name / "config.json").read_text())["identity"] for name in kept}
    assert stated == kept
    assert kept <= planned[folder.name]
    if folder != JUDGED:
        assert len(planned[folder.name] - kept) == MISSING.get(folder.name, 0)


def test_every_sweep_has_been_run_or_writes_another_record(planned):
    """stability's rows are read from its runs, which are not kept."""
    kept = {folder.name for folder in STUDIES} | {"stability"}
    assert set(planned) == kept
