"""Forecasts are frozen before the run and judged after it."""

import json

import pytest

from analysis import AnalysisError, fit, forecast, freeze, read_runs, verify
from analysis.forecast import history_path, judge, read_frozen

NEW = 331_776


@pytest.fixture
def frozen(ladder):
    law = fit("power_floor_N", read_runs(ladder).at_common_tokens())
    path = ladder / "forecast.json"
    freeze(forecast(law, N=NEW, level=0.9), path, date="2026-11-24")
    return path


def test_a_frozen_forecast_reads_back_the_same(frozen, ladder):
    table = read_runs(ladder)
    data, made = json.loads(frozen.read_text()), read_frozen(frozen)
    assert data["loss_nats_per_token"] == made.loss and data["date"] == "2026-11-24"
    assert data["table_sha256"] == table.at_common_tokens().digest == made.table_sha256
    assert data["fit"]["params"] == pytest.approx(fit("power_floor_N", table).params)
    assert set(made.identities) == set(table.runs["identity"]) and len(made.code_sha256) == 64
    assert made.held == {"D": 4e6} and made.low < made.loss < made.high


def test_the_sentence_and_the_score_inside(frozen, ladder, run_writer):
    made = read_frozen(frozen)
    measured = made.loss + 0.3 * (made.high - made.loss)
    run_writer(ladder, n=NEW, loss=measured)
    verdict = verify(frozen, read_runs(ladder), date="2026-11-25")
    assert verdict.sentence == (
        f"forecast for N = 331,776: L = {made.loss:.4f} nats/token, 90 % interval "
        f"[ {made.low:.4f}, {made.high:.4f} ]; measured {measured:.4f}; inside"
    )
    assert verdict.inside and verdict.winkler == pytest.approx(made.high - made.low)


@pytest.mark.parametrize("side", [-1, 1])
def test_outside_is_fined_twenty_times_the_miss(frozen, ladder, run_writer, side):
    made = read_frozen(frozen)
    measured = made.high + 0.05 if side > 0 else made.low - 0.05
    run_writer(ladder, n=NEW, loss=measured)
    verdict = judge(made, read_runs(ladder))
    assert not verdict.inside and verdict.sentence.endswith("; outside")
    assert verdict.winkler == pytest.approx(made.high - made.low + 20 * 0.05)


def test_history_keeps_each_verdict_once(frozen, ladder, run_writer):
    run_writer(ladder, n=NEW)
    for day in ("2026-11-25", "2026-11-26"):
        verify(frozen, read_runs(ladder), date=day)
    rows = [json.loads(line) for line in history_path(frozen).read_text().splitlines()]
    assert len(rows) == 1 and rows[0]["date"] == "2026-11-25"
    assert rows[0]["name"] == f"n{NEW}" and "winkler_nats_per_token" in rows[0]


def test_refuses_a_run_that_made_the_forecast(ladder):
    table = read_runs(ladder)
    seen = table.variable("N").max()
    path = freeze(forecast(fit("power_floor_N", table), N=seen), ladder / "f.json", date="x")
    with pytest.raises(AnalysisError, match="was in the table that the forecast was made from"):
        verify(path, table)
    assert not history_path(path).exists()


def test_refuses_other_data(frozen, ladder, run_writer):
    run_writer(ladder, n=NEW, changes={"data": {"name": "eurosat", "digest": "d9"}})
    table = read_runs(ladder, where={"data": "eurosat"})
    with pytest.raises(AnalysisError, match="is for data dead_leaves/8; the run has eurosat"):
        verify(frozen, table)


def test_refuses_where_no_run_or_two_runs_fit(frozen, ladder, run_writer):
    with pytest.raises(AnalysisError, match="no finished run with N = 331,776, D = 4,000,000"):
        verify(frozen, read_runs(ladder))
    run_writer(ladder, n=NEW, tokens=8_000_000)
    with pytest.raises(AnalysisError, match="no finished run with N = 331,776, D = 4,000,000"):
        verify(frozen, read_runs(ladder))
    first, _ = run_writer(ladder, n=NEW), run_writer(ladder, n=NEW, seed=1)
    with pytest.raises(AnalysisError, match="2 runs have .* name one identity"):
        verify(frozen, read_runs(ladder))
    assert verify(frozen, read_runs(ladder), identity=first.name).identity == first.name


def test_refuses_another_convention(frozen, ladder, run_writer):
    run_writer(ladder, n=NEW)
    with pytest.raises(AnalysisError, match="N counts total, .* the forecast has blocks"):
        verify(frozen, read_runs(ladder, convention="total"))


def test_a_frozen_file_is_not_overwritten_by_another_forecast(frozen, ladder):
    law = fit("power_floor_N", read_runs(ladder).at_common_tokens())
    before = frozen.read_bytes()
    freeze(forecast(law, N=NEW), frozen, date="2027-01-01")
    assert frozen.read_bytes() == before
    with pytest.raises(AnalysisError, match="holds another forecast, of 2026-11-24"):
        freeze(forecast(law, N=NEW + 1), frozen, date="2027-01-01")


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"schema": "x"}', '{"schema": "analysis.forecast/1"}']
)
def test_a_damaged_frozen_file_is_refused(frozen, ladder, text):
    frozen.write_text(text)
    with pytest.raises(AnalysisError, match="forecast.json: "):
        verify(frozen, read_runs(ladder))
