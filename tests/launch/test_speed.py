"""Start-up in CPU seconds of the child: half a second for help, one for a refusal."""

import resource

import pytest

from tests.launch.commands import command


def cpu_s(*arguments):
    """CPU seconds of one command, the best of three: other work on the machine does not count."""
    found = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command(*arguments)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        found.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(found)


@pytest.mark.parametrize(
    "arguments",
    [
        ("-m", "lab.launch.train"),
        ("-m", "lab.launch.sweep"),
        ("-m", "analysis"),
        ("experiments/01_first_ladder/ladder.py",),
    ],
    ids=lambda a: a[-1],
)
def test_help_within_half_a_second(arguments):
    assert cpu_s(*arguments, "--help") < 0.5


def test_a_wrong_field_is_refused_within_a_second():
    train = ("-m", "lab.launch.train", "--config", "configs/elm.py:s1")
    assert cpu_s(*train, "--config.model.widht=3") < 1.0
