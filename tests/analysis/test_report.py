"""The page and the command line."""

import json
import re
import subprocess
import sys
import time
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from analysis import compare, from_frame, read_runs, write_report
from analysis.__main__ import main
from analysis.report_figures import held_levels, history
from tests.analysis.curves import CurveTruth, branches
from tests.analysis.laws import COLUMNS, Truth, isoflop_table

NEW = 331_776


class Page(HTMLParser):
    """Text, tags and addresses of a page; void tags and SVG paths need no end."""

    def __init__(self, source):
        super().__init__()
        self.tags, self.words, self.addresses = [], [], []
        self.feed(source)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "xlink:href")]

    def handle_data(self, data):
        self.words.append(data)


def report_of(folder, **options):
    return write_report(read_runs(folder), folder / "report.html", **options).read_text()


def test_the_verdict_stands_first_and_every_run_has_its_provenance(ladder, run_writer, capsys):
    frozen = ladder / "forecast.json"
    assert main(["forecast", str(ladder), "--n", str(NEW), "--freeze", str(frozen)]) == 0
    run_writer(ladder, n=NEW)
    page = Page(report_of(ladder, frozen=frozen))
    sentence = re.search(r"forecast for N = 331,776: L = .{6} nats/token, 90 % .*?side", page.text)
    assert sentence and page.text.index(sentence[0]) < page.text.index("Runs")
    assert "The law that made the forecast" in page.text
    for identity in read_runs(ladder).runs["identity"]:
        assert identity in page.text and f"{identity}/record.jsonl" in page.text
    assert "separable" not in page.text and "1 value of D" in page.text  # refused, with the reason
    assert "under-determined" in page.text


def test_the_page_fetches_nothing_and_is_small(ladder):
    source = report_of(ladder)
    page = Page(source)
    assert len(source.encode()) < 1_000_000
    assert not {"link", "img", "iframe"} & set(page.tags)
    assert page.tags.count("script") == 1 and "<script>" in source  # inline, by its digest
    assert all(address.startswith("#") for address in page.addresses)
    assert "prefers-color-scheme: dark" in source and "url(http" not in source
    assert page.tags.count("svg") >= 6


def test_whole_curves_stand_on_the_page_with_their_law_and_figure(ladder):
    made = branches(CurveTruth(), noise=0.004)
    page = Page(report_of(ladder, curves=made))
    assert "Whole curves" in page.text and "L(N, S, R) = E + A N^-a + B S^-b + C R" in page.text
    ((_, shown),) = re.findall(r" (C) (0\.\d+) \[", page.text)
    assert float(shown) == pytest.approx(CurveTruth().C, rel=0.2)
    assert "8 paths" in page.text and "Dots are evaluations" in page.text


def test_few_paths_give_the_law_of_curves_without_intervals_and_say_so(ladder):
    made = branches(CurveTruth(), noise=0.004, sizes=4)
    page = Page(report_of(ladder, curves=made))
    assert "No intervals" in page.text and "4 paths" in page.text


def test_why_curves_have_no_law_in_common_is_said(ladder, capsys):
    assert "Whole curves" not in Page(report_of(ladder)).text
    assert main(["report", str(ladder)]) == 0
    said = Page((ladder / "report.html").read_text()).text
    assert "a law of curves needs the schedule" in said


def test_names_are_escaped(tmp_path, run_writer):
    study = tmp_path / "study"
    for n in (3000, 9000, 27_000, 81_000, 243_000):
        run_writer(study, n=n, name=f"<script>alert({n})</script>$x_{{$ & co")
    source = report_of(study)
    assert source.count("<script") == 1 and "<script>alert" not in source
    assert "&lt;script&gt;alert(3000)" in source


def test_left_out_runs_and_missing_images_are_said(ladder, run_writer):
    run_writer(
        ladder, n=999, name="burnt", end={"kind": "end", "status": "diverged", "reason": "NaN"}
    )
    max(ladder.glob("*/validation.npz")).unlink()  # of the largest, which is kept
    text = Page(report_of(ladder)).text
    assert "burnt" in text and "diverged: NaN" in text and "paired differences need it" in text


def test_two_runs_give_a_page_without_laws(tmp_path, run_writer):
    for n in (3000, 9000):
        run_writer(tmp_path / "study", n=n)
    text = Page(report_of(tmp_path / "study")).text
    assert "No law is determined" in text and text.count("too few points") >= 3
    refused = [law for law in ("power_N", "power_floor_N", "saturating_N") if law in text]
    assert len(refused) == 3 and "Coverage history" not in text


def surface(source=None, side=5):
    """A grid of N and D with noise of 0.3 %; FILE:LINE of each run where a file is named."""
    rng, truth = np.random.default_rng(11), Truth()
    n, d = (
        grid.ravel()
        for grid in np.meshgrid(np.geomspace(1e7, 1e9, side), np.geomspace(1e9, 1e11, side))
    )
    loss = truth.loss(n, d) * np.exp(0.003 * rng.standard_normal(side**2))
    frame = pd.DataFrame({"N": n, "D": d, "C": 6 * n * d, "loss": loss})
    columns = dict(COLUMNS)
    if source:
        frame["source"] = [f"{source}:{row + 2}" for row in range(side**2)]
        columns["source"] = ("source", "text")
    return from_frame(frame, columns=columns, source=source or "made")


def test_levels_of_the_history_are_those_of_the_comparison():
    found = compare(surface(side=8))
    told = 0
    for level in (0.1, 0.3, 0.5, 0.8, 0.9):
        for index, past in enumerate(replace(found, level=level).past):
            levels = held_levels(found, index)
            assert len(levels) == (0 if past.inside is None else past.runs_ahead)
            if len(levels):
                assert np.mean(levels <= level) == pytest.approx(past.inside)
                told += 1
    assert told >= 10
    (axes,) = history(found).axes
    dots = sum(len(line.get_xdata()) for line in axes.lines if line.get_marker() == "o")
    assert dots == sum(len(held_levels(found, index)) for index in range(len(found.windows)))


def test_an_imported_table_has_a_page_with_file_and_line(tmp_path):
    path = write_report(surface("other_tool.csv"), tmp_path / "report.html")
    page = Page(path.read_text())
    assert all(f"other_tool.csv:{row + 2}" in page.text for row in range(25))
    for law in compare(surface()).members:
        assert law.form.name in page.text and f"{law.weight:.3f}" in page.text
    assert "Coverage history" in page.text and "none could be stated" in page.text
    assert "of 300 refits" in page.text  # of the law of N and D
    assert "Refused: isoFLOP" in page.text and "Refused: envelope" in page.text
    assert "Neighbours of the ladder" not in page.text and "Learning curves" not in page.text


def test_bowls_stand_on_the_page_where_the_table_has_them(tmp_path):
    table = isoflop_table(Truth(), np.geomspace(1e18, 1e21, 5), noise=5e-4, seed=2)
    page = Page(write_report(table, tmp_path / "report.html").read_text())
    assert "isoFLOP bowls with their minima" in page.text and "Refused: isoFLOP" not in page.text
    assert "Refused: envelope: no run has" in page.text


def test_same_runs_same_page(ladder):
    assert report_of(ladder) == report_of(ladder)


def test_commands_suggest_the_next_and_speak_json(ladder, capsys, run_writer):
    folder = str(ladder)
    for words in (
        ["table"],
        ["fit"],
        ["fit", "--form", "power_N", "--loss", "squares"],
        ["report"],
    ):
        assert main([words[0], folder, *words[1:]]) == 0
        assert "next: python -m analysis" in capsys.readouterr().out
    assert main(["fit", folder, "--json"]) == 0
    laws = json.loads(capsys.readouterr().out)
    assert [law["status"] for law in laws] == ["CONVERGED", "CONVERGED", "UNDER_DETERMINED"]
    assert "params" in laws[0] and "params" not in laws[2]
    assert main(["forecast", folder, "--n", str(NEW), "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["low_nats_per_token"] < made["loss_nats_per_token"] < made["high_nats_per_token"]
    frozen = str(ladder / "forecast.json")
    assert main(["forecast", folder, "--n", str(NEW), "--freeze", frozen]) == 0
    run_writer(ladder, n=NEW)
    capsys.readouterr()
    assert main(["verify", folder]) == 0
    assert capsys.readouterr().out.startswith("forecast for N = 331,776: L = ")
    assert main(["table", folder, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["runs"]) == 8


BAD = {
    "no record.jsonl": ["table", "{empty}"],
    "not a directory": ["fit", "{empty}/nowhere"],
    "form 'cubic': allowed are": ["fit", "{ladder}", "--form", "cubic"],
    "allowed is NAME=VALUE": ["fit", "{ladder}", "--form", "power_N", "--pin", "a"],
    "N is missing": ["forecast", "{ladder}"],
    "no frozen forecast": ["verify", "{ladder}"],
    "level 2.0": ["fit", "{ladder}", "--level", "2"],
    "delta -1.0": ["fit", "{ladder}", "--delta", "-1"],
}


@pytest.mark.parametrize("message", BAD)
def test_a_users_error_is_one_line_and_exit_two(ladder, tmp_path, capsys, message):
    empty = tmp_path / "empty"
    empty.mkdir()
    assert main([word.format(ladder=ladder, empty=empty) for word in BAD[message]]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.parametrize("command", [[], ["fit"], ["forecast"], ["verify"], ["report"], ["table"]])
def test_help_answers_at_once_with_an_example(command):
    start = time.perf_counter()
    words = [sys.executable, "-m", "analysis", *command, "--help"]
    text = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    assert time.perf_counter() - start < 2.0  # half a second on an idle machine
    assert not command or "example: python -m analysis" in " ".join(text.split())
    loaded = "import sys, analysis.__main__; sys.exit(bool({'numpy', 'rich'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", loaded]).returncode == 0
