"""Commands from outside: help, refusals, what is imported, what a bad folder gives."""

import json
import pathlib

import pytest

from lab.core.errors import ExitCode
from tests.launch.commands import TINY, command, only, place, refused

COMMANDS = [
    ("-m", "lab.launch.train"),
    ("-m", "lab.launch.sweep"),
    ("-m", "lab.launch.encode"),
    ("-m", "lab.launch.tokens"),
    ("-m", "lab.launch.adopt"),
    ("-m", "lab.launch.sample"),
    ("-m", "lab.launch.counts"),
    *[("-m", "analysis", name) for name in ("table", "fit", "forecast", "verify", "report")],
    ("experiments/01_first_ladder/ladder.py",),
    ("tools/kill_ladder.py",),
    ("tools/mutate_checkpoints.py",),
    ("tools/collect_records.py",),
]
HEAVY = ("jax", "flax", "orbax", "tensorflow", "tensorflow_datasets", "pandas", "matplotlib")


def imported(stderr):
    """Top-level modules that -X importtime lists."""
    lines = [line for line in stderr.splitlines() if line.startswith("import time:")]
    return {line.rsplit("|", 1)[-1].strip().split(".")[0] for line in lines}


@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda a: " ".join(a))
def test_help_has_an_example_and_loads_nothing_heavy(arguments):
    result = command("-X", "importtime", *arguments, "--help")
    assert result.returncode == 0
    name = arguments[1] if arguments[0] == "-m" else pathlib.Path(arguments[0]).name
    assert result.stdout.count(name) >= 2, "usage and an example"
    assert not imported(result.stderr) & set(HEAVY)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--config.model.widht=3"], ["config.model.widht", 'did you mean "width"']),
        (["--config.optimizer.learning_rate=fast"], ["learning_rate", "float expected"]),
        (
            ["--config.tokenizer.name=pixel"],
            ["config.tokenizer.name", "pixels, pixel_bits, trained"],
        ),
        (["--config.execution.layout=fspd"], ["config.execution.layout", '"fsdp"']),
        (["--config.model.family=elmo"], ["config.model.family", '"elm"']),
        (["--config.model.size=s99"], ["s99", "s1, s2"]),
        (["--config.model.head=bernouli"], ["config.model.head", "categorical"]),
        (["--config.seed"], ["a value is missing"]),
        (["--config.seed", "--parameters"], ["--config.seed", "a value is missing"]),
        (["--config.seed=1.5"], ["config.seed", "int expected"]),
        (["--config.seed", "-1"], ["config.seed", "allowed is >= 0"]),
        (["--config.model=3"], ["config.model is a section"]),
        (["--config.PATH=3"], ["config.PATH", "no such field"]),
        (["--config.train.duration=4"], ["config.train.duration", "steps, examples, epochs"]),
        (["stray"], ["stray: no such flag"]),
        (["--confg.seed=1"], ["--confg.seed=1", "no such flag"]),
        (["--config=configs/nowhere.py"], ["configs/nowhere.py", "no such file"]),
        (["--config=lab/core/units.py"], ["lab/core/units.py", "get_config"]),
        (["--config=configs/base.py:s1"], ["configs/base.py:s1", "too many positional"]),
        (["--config=README.md"], ["README.md", "not a Python file"]),
        (["--parameters"], ["required: --config", "--help"]),
    ],
)
def test_wrong_fields_are_refused_before_jax(arguments, words):
    whole = arguments[0].startswith("--config=") or "--parameters" in arguments
    base = () if whole else ("--config", "configs/elm.py:s1")
    result = command("-X", "importtime", "-m", "lab.launch.train", *base, *arguments)
    assert not imported(result.stderr) & set(HEAVY)
    result.stderr = "\n".join(
        line for line in result.stderr.splitlines() if not line.startswith("import time:")
    )
    refused(result, *words)


def tiny_train(folder, *more, size="s1", steps=12, **environment):
    return command(
        *("-m", "lab.launch.train", "--config", f"configs/elm.py:{size}"),
        *(*TINY, f"--config.train.duration={steps} steps"),
        *place(folder),
        *more,
        **environment,
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    result = tiny_train(folder)
    assert result.returncode == ExitCode.DONE, result.stderr
    return folder


def end_of(folder):
    path = only(folder, "runs/default/*/record.jsonl")
    return json.loads(path.read_text().splitlines()[-1])


def test_a_finished_run_is_not_trained_again(trained):
    before = only(trained, "runs/default/*/record.jsonl").read_bytes()
    result = tiny_train(trained)
    assert result.returncode == ExitCode.DONE and "done before" in result.stdout
    assert only(trained, "runs/default/*/record.jsonl").read_bytes() == before


def test_a_folder_of_another_config_is_refused_and_left_alone(trained):
    path = only(trained, "runs/default/*/config.json")
    kept = path.read_text()
    record = only(trained, "runs/default/*/record.jsonl")
    rows = record.read_text()
    record.write_text("".join(rows.splitlines(keepends=True)[:-1]))
    path.write_text(kept.replace(json.loads(kept)["identity"], "0123456789ab"))
    refused(tiny_train(trained), "config.json", "0123456789ab")
    path.write_text("{")
    refused(tiny_train(trained), "config.json", "not a config")
    path.write_text(kept)
    record.write_text(rows)


def test_unknown_data_and_missing_files(tmp_path):
    more = ["--config.data.name=fashion_mnist", "--config.tokenizer.channels=grey"]
    (tmp_path / "manual").mkdir()
    manual = f"--config.data.manual_dir={tmp_path / 'manual'}"
    refused(tiny_train(tmp_path, *more, manual), "fashion_mnist", "train-images-idx3-ubyte.gz")
    refused(tiny_train(tmp_path, "--config.data.name=dead_leafs"), "dead_leafs", "dead_leaves")
    refused(tiny_train(tmp_path, "--config.data.train_split=trian"), "trian", "train")


def test_more_devices_than_there_are_and_a_layout_that_does_not_fit(tmp_path):
    result = tiny_train(tmp_path, "--config.execution.layout=fsdp_tp")
    refused(result, "fsdp_tp", "does not divide 1 devices")


def test_tensorflow_is_imported_by_neither_half(trained):
    path = only(trained, "runs/default/*/record.jsonl").parent
    script = (
        "import sys; sys.argv = ['x', 'table', sys.argv[1]]\n"
        "from analysis.__main__ import main; code = main(sys.argv[1:])\n"
        "import lab.launch.runner, lab.train.loop\n"
        "bad = [m for m in ('tensorflow', 'torch') if m in sys.modules]\n"
        "sys.exit(bool(bad) or code)\n"
    )
    result = command("-c", script, path)
    assert result.returncode == 0, result.stderr
    probe = (
        "import sys, lab.launch.train as train; train.main(sys.argv[1:])\n"
        "print('tensorflow' in sys.modules)"
    )
    again = command(
        *("-c", probe, "--config", "configs/elm.py:s1", *TINY, "--config.train.duration=2 steps"),
        *(f"--config.execution.workdir={trained}/other", f"--config.data.data_dir={trained}/data"),
    )
    assert again.returncode == 0 and again.stdout.strip().endswith("False"), again.stderr


def test_the_ladder_refuses_in_one_line(tmp_path):
    ladder = ("experiments/01_first_ladder/ladder.py", "--workdir", tmp_path)
    refused(command(*ladder, "--scale", "0"), "--scale 0", "(0, 100]")
    refused(command(*ladder, "--dta", "eurosat"), "--dta", "no such flag")
    refused(command(*ladder, "--config.trian.seed=1"), "config.trian", '"train"')
    assert not list(tmp_path.iterdir())
