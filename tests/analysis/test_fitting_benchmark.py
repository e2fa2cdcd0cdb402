"""The benchmark of the fitting engine as a command: its flags, its file, its refusals."""

import json

import pytest

from benchmarks import fitting
from benchmarks.rows import Row, row


@pytest.fixture
def parts(monkeypatch):
    """Two quick parts in the place of the measurements, with the folders that they were given."""
    given = []

    def quick(folder):
        given.append(folder)
        return [Row("seen", "1", "", None)]

    def missed(folder):
        return [row("far off", 2.0, 1.0)]

    monkeypatch.setattr(fitting, "PARTS", {"coverage": quick, "curves": missed})
    return given


def test_rows_are_printed_and_written_as_those_of_every_benchmark(parts, tmp_path, capsys):
    out = tmp_path / "rows.json"
    assert fitting.main(["--only", "coverage", "--json", "--out", str(out)]) == 0
    assert [row["name"] for row in json.loads(capsys.readouterr().out)["rows"]] == ["seen"]
    document = json.loads(out.read_text())
    assert [row["value"] for row in document["rows"]] == ["1"] and "--only coverage" in (
        document["command"]
    )


def test_a_missed_target_ends_with_one(parts, tmp_path, capsys):
    (tmp_path / "alabdulmohsin92.csv").write_text("")
    assert fitting.main(["--tables", str(tmp_path)]) == 1
    assert parts == [tmp_path]
    assert "far off" in capsys.readouterr().out


def test_without_tables_the_parts_that_need_one_are_named_and_left(parts, capsys):
    assert fitting.main([]) == 0
    assert "not measured without --tables: curves" in capsys.readouterr().err


def test_a_folder_without_tables_and_an_unknown_part_are_refused(parts, tmp_path, capsys):
    assert fitting.main(["--tables", str(tmp_path)]) == 2
    assert f"error: --tables {tmp_path}: holds no alabdulmohsin92.csv" in capsys.readouterr().err
    with pytest.raises(SystemExit) as refused:
        fitting.main(["--only", "nothing"])
    assert refused.value.code == 2
