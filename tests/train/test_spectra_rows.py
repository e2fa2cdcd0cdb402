"""Evaluations say how concentrated attention is where that is asked for, on any layout."""

import pytest

from tests.train import jobs

NAMES = ("qk_top_share", "qk_effective_rank", "qk_spectral_norm")


def evaluations(made):
    jobs.train(made)
    return [row for row in jobs.record(made) if row["kind"] == "evaluation"]


def test_a_number_a_layer_on_one_device_and_on_shards(tmp_path):
    asked = {"execution.attention_spectra": True, "train.evaluate_every_steps": 4}
    alone = jobs.job(tmp_path / "alone", devices=1, **asked)
    cut = jobs.job(tmp_path / "cut", layout="fsdp", devices=8, **asked)
    plain = jobs.job(tmp_path / "plain", devices=1, **{"train.evaluate_every_steps": 4})
    assert alone.identity == plain.identity
    rows = evaluations(alone)
    said = [f"{name}_{layer}" for name in NAMES for layer in range(alone.run.model.depth)]
    for row, other, without in zip(rows, evaluations(cut), evaluations(plain), strict=True):
        found = {name: value for name, value in row.items() if name.startswith("qk_")}
        assert found == pytest.approx({name: other[name] for name in said}, rel=1e-3)
        assert {name: value for name, value in row.items() if name not in said} == without
    assert all(rows[0][name] != rows[-1][name] for name in said)
