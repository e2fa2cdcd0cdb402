"""Flags of lab.launch.evaluate: what is refused before anything heavy is loaded; grids."""

import pytest

from lab.core.errors import LabError
from lab.launch import evaluate
from lab.launch.door import parse
from lab.launch.evaluate_flags import WHAT, check_flags, grid_points, parser, sampling_flags
from tests.launch.commands import command
from tests.launch.test_sample import HEAVY


def test_help_loads_nothing_heavy():
    result = command("-X", "importtime", "-m", "lab.launch.evaluate", "--help")
    assert result.returncode == 0 and "--extractor" in result.stdout
    lines = [line for line in result.stderr.splitlines() if line.startswith("import time:")]
    loaded = {line.rsplit("|", 1)[-1].strip().split(".")[0] for line in lines}
    assert lines and not loaded & set(HEAVY)


FD = ["--what", "fd"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--seed", str(2**40)], ["--seed 1099511627776", "< 2147483648"]),
        (["--grid", "top_k=1"], ["--grid top_k=1", "no randomness"]),
        (["--what", "fid"], ["--what fid", "fd"]),
        (["--what", "probe,probe"], ["--what probe,probe", "each once"]),
        (["--what", ","], ["at least one"]),
        (FD, ["--extractor: needed for --what fd", "configs/classifiers"]),
        ([*FD, "--extractor", "x", "--samples", "39"], ["--samples 39", ">= 40"]),
        ([*FD, "--extractor", "x", "--labels", "all"], ["--labels", "invalid choice"]),
        ([*FD, "--extractor", "x", "--grid", "top_k=1"], ["--grid top_k=1", "no randomness"]),
        (["--what", "randomness", "--extractor", "x"], ["--grid: needed"]),
        (["--what", "probe", "--level", "1"], ["--level 1.0", "< 1"]),
        (["--what", "probe", "--steps", "4,4"], ["--steps 4,4", "each once"]),
        (["--what", "probe", "--steps", "first"], ["--steps first", "last, all"]),
        (["--what", "probe", "--batch", "0"], ["--batch 0", ">= 1"]),
        (["--what", "probe", "--config.seed=1"], ["--config.seed", "no config"]),
    ],
)
def test_wrong_flags_are_refused(tmp_path, arguments, words):
    with pytest.raises(LabError) as caught:
        evaluate.main([str(tmp_path), *arguments])
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ([], ["likelihood", "probe", "attention"]),
        (["--extractor", "x"], [n for n in WHAT if n != "randomness"]),
        (["--extractor", "x", "--grid", "top_k=1"], list(WHAT)),
        (["--what", "probe,fd", "--extractor", "x"], ["probe", "fd"]),
    ],
)
def test_without_what_all_is_measured_that_can_be(tmp_path, arguments, names):
    flags, overrides = parse(parser(), [str(tmp_path), *arguments])
    check_flags(flags, overrides)
    assert sorted(flags.what) == sorted(names)


def test_a_run_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(LabError, match="none: no such directory"):
        evaluate.main([str(tmp_path / "none"), "--what", "probe"])
    with pytest.raises(LabError, match="neither a run directory nor a folder of them"):
        evaluate.main([str(tmp_path), "--what", "probe"])


def test_a_grid_has_every_point():
    points = grid_points("temperature=0.7,1.0; top-k=0,32;schedule=cos")
    assert points == [
        {"temperature": 0.7, "top_k": 0, "schedule": "cos"},
        {"temperature": 0.7, "top_k": 32, "schedule": "cos"},
        {"temperature": 1.0, "top_k": 0, "schedule": "cos"},
        {"temperature": 1.0, "top_k": 32, "schedule": "cos"},
    ]
    assert grid_points("diffusion_steps=10") == [{"diffusion_steps": 10}]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("temprature=1", ['did you mean "temperature"']),
        ("temperature=hot", ["'hot' is no value of temperature"]),
        ("temperature=", ["'' is no value"]),
        ("top_k=1.5", ["'1.5' is no value of top_k"]),
        ("schedule=sine", ["'sine' is no value of schedule"]),
        ("top_k=1,1", ["a value is given twice"]),
        ("top_k=1;top_k=2", ["top_k is given twice"]),
        (";", ["expected is like"]),
        ("steps=4", ["diffusion_steps"]),
    ],
)
def test_a_grid_that_is_none_is_refused(text, words):
    with pytest.raises(LabError) as caught:
        grid_points(text)
    assert all(word in str(caught.value) for word in ["--grid", *words]), str(caught.value)


def test_a_point_is_laid_over_the_flags_as_sample_has_them():
    flags = parser().parse_args(["x", "--what", "fd", "--top-k", "5", "--diffusion-steps", "7"])
    given = vars(sampling_flags(flags, {"temperature": 0.5, "top_k": 9}))
    assert given["temperature"] == 0.5 and given["top_k"] == 9 and given["steps"] == 7
    assert given["guidance"] is None and "diffusion_steps" not in given
    assert flags.steps == "last"
