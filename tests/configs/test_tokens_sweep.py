"""The sweeps of experiments/02_tokens: which runs they hold."""

import pathlib

import pytest

from lab.core.config import identity
from lab.core.errors import LabError
from lab.launch.door import load_config, load_function

SWEEP = "experiments/02_tokens/sweep.py"
RESULTS = pathlib.Path(__file__).parents[2] / "experiments/02_tokens/results/02_tokens"
LOSSES = {"losses.adversarial", "losses.adversarial_most", "losses.adversarial_start"}


def runs(part):
    return {run["name"]: run for run in load_function(f"{SWEEP}:{part}", "sweep")()}


def admitted(run):
    fields = dict(run)
    return load_config(fields.pop("config"), fields)


def test_the_tokenizers_are_those_of_the_committed_records():
    assert {identity(admitted(run)) for run in runs("tokenizers").values()} == {
        path.name for path in RESULTS.iterdir() if "-gan-" not in (path / "config.json").read_text()
    }


def test_adversarial_runs_differ_from_their_twins_in_the_adversarial_loss_alone():
    plain, adversarial = runs("tokenizers"), runs("adversarial")
    assert len(adversarial) == 6
    for name, run in adversarial.items():
        twin = plain[name.replace("-gan", "")]
        assert {key for key in run if run[key] != twin.get(key)} == LOSSES | {"name"}
        made = admitted(run)
        assert made.losses.adversarial > 0
        assert (made.losses.adversarial_start.amount, made.train.duration.amount) == (10240, 20480)


def test_a_part_that_is_not_there_is_refused():
    with pytest.raises(LabError, match="sweep.py:gan: allowed are tokenizers, generators, adver"):
        runs("gan")
