"""The command that counts: what it prints, what it refuses, and its exit code."""

import json

from lab.core.errors import ExitCode
from lab.models.published import PUBLISHED, Published
from tests.launch.commands import command, refused


def test_rows_as_json_and_every_published_number_met():
    result = command("-m", "lab.launch.counts", "--family", "bigr", "mar", "--json")
    assert result.returncode == ExitCode.DONE
    rows = json.loads(result.stdout)
    assert [(r["family"], r["size"]) for r in rows] == [
        (of.family, of.size) for of in PUBLISHED if of.family in ("bigr", "mar")
    ]
    assert all(r["met"] and sum(r["params"].values()) == r["params_total"] for r in rows)


def test_a_family_that_is_not_published_is_refused():
    refused(command("-m", "lab.launch.counts", "--family", "biggr"), "--family biggr", "bigr")
    refused(command("-m", "lab.launch.counts", "--config.seed=1"), "--config.seed")


def test_met_means_rounds_to_what_was_said():
    of = Published(family="elm", size="B", said="1.4B", vocabulary=2)
    assert of.met(1.449e9) and of.met(1.351e9)
    assert not of.met(1.451e9) and not of.met(1.349e9)
    up = Published(family="mar", size="L", said="479M", vocabulary=0, up=True)
    assert up.met(478.3e6) and not up.met(477.9e6) and not up.met(479.1e6)
    unused = Published(family="mlm", size="L", said="10.5M", vocabulary=2, unused=500_000)
    assert unused.met(10.0e6) and not unused.met(10.5e6)
