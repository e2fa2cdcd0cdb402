"""The door: what is refused, how it is said, and what the identity covers."""

import dataclasses

import pytest

from configs import base, elm
from lab.core.config import RunConfig, admit, identity
from lab.core.errors import LabError
from lab.core.fields import overlay, plain
from lab.core.units import Duration
from lab.models.families import fill_sizes


def resolved(**overrides):
    config = overlay(elm.get_config("s3"), overrides)
    fill_sizes(config.model)
    return config


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("model.widht", 3, ["config.model.widht", 'did you mean "width"']),
        ("optimizer.learning_rate", "fast", ["config.optimizer.learning_rate", "'fast'", "float"]),
        ("optimizer.learning_rate", -1.0, ["-1.0", "> 0"]),
        ("optimizer.schedule", "linear", ["'linear'", "wsd, cosine, constant"]),
        ("train.duration", "3 fortnights", ["3 fortnights", "epochs"]),
        ("train.duration", "many epochs", ['"many" is no number']),
        ("train.batch_size", 0, ["config.train.batch_size = 0", ">= 1"]),
        ("train.batch_size", "2.5", ["config.train.batch_size", "int expected"]),
        ("model.class_dropout", 1.0, ["config.model.class_dropout = 1.0", "< 1"]),
        ("execution.unroll_layers", "maybe", ["true or false"]),
        ("model.heads", 5, ["must divide"]),
        ("model.heads", 16, ["multiple of 4"]),
        ("study", "../up", ["plain folder name"]),
        ("model", 3, ["config.model is a section"]),
        ("seed.x", 3, ["config.seed is a field"]),
    ],
)
def test_refuses_by_path_value_and_what_is_allowed(path, value, words):
    with pytest.raises(LabError) as refused:
        admit(resolved(**{path: value}))
    for word in words:
        assert word in str(refused.value)
    assert "\n" not in str(refused.value)


TOGETHER = "config.optimizer.cooldown_fraction = 0.3 together"


@pytest.mark.parametrize(
    ("schedule", "warmup", "duration", "words"),
    [
        ("wsd", "71 steps", "100 steps", ['= "100 steps": 100 steps', "the 71 of", "the 30 of"]),
        ("wsd", "2e3 tokens", "2.5e3 tokens", ['"2500 tokens": 2500 tokens', "the 750 of"]),
        ("wsd", "0.9 epochs", "1 epochs", ['"1 epochs": 1 epochs', "the 0.9 of", "the 0.3 of"]),
        ("wsd", "75 steps", "800 examples", ['"800 examples": 100 steps', '= "75 steps"']),
        ("wsd", "600 examples", "100 steps", ["the 75 of", '= "600 examples"', "the 30 of"]),
        ("cosine", "100 steps", "100 steps", ["100 steps are too few for the 100 of"]),
        ("constant", "101 steps", "100 steps", ["100 steps are too few for the 101 of"]),
        ("wsd", "0 steps", "0 steps", ["0 steps are too few for the 0 of"]),
    ],
)
def test_a_duration_too_short_for_its_schedule_is_refused(schedule, warmup, duration, words):
    """At the door where the units allow it; tests/train has the rest, which need the data."""
    changed = {
        "optimizer.schedule": schedule,
        "optimizer.warmup": warmup,
        "train.duration": duration,
    }
    with pytest.raises(LabError) as refused:
        admit(resolved(**changed))
    for word in ["config.train.duration = ", "config.optimizer.warmup = ", *words]:
        assert word in str(refused.value), str(refused.value)
    assert (TOGETHER in str(refused.value)) == (schedule == "wsd" and duration != "0 steps")


@pytest.mark.parametrize(
    ("schedule", "warmup", "duration"),
    [
        ("wsd", "70 steps", "100 steps"),
        ("wsd", "0.7 epochs", "1 epochs"),
        ("wsd", "560 examples", "100 steps"),
        ("cosine", "99 steps", "100 steps"),
        ("wsd", "99 steps", "100 tokens"),  # known when the tokenizer is
    ],
)
def test_a_schedule_that_fits_is_admitted(schedule, warmup, duration):
    changed = {"optimizer.warmup": warmup, "train.duration": duration}
    admit(resolved(**{"optimizer.schedule": schedule}, **changed))


def test_missing_and_extra_fields_are_refused():
    config = resolved().to_dict()
    del config["optimizer"]["beta1"]
    with pytest.raises(LabError, match=r"config\.optimizer\.beta1: missing"):
        admit(config)
    config = resolved().to_dict()
    config["optimizer"]["momentum"] = 0.9
    with pytest.raises(LabError, match=r"config\.optimizer\.momentum: no such field"):
        admit(config)
    config = resolved().to_dict()
    config["data"] = "dead_leaves"
    with pytest.raises(LabError, match=r"config\.data = 'dead_leaves': a section"):
        admit(config)


def test_every_field_of_a_wrong_type_is_refused():
    config = resolved().to_dict()
    wrong = object()
    for section, fields in [("", config), *((k, v) for k, v in config.items() if type(v) is dict)]:
        for name in fields:
            mutated = resolved().to_dict()
            target = mutated[section] if section else mutated
            target[name] = wrong
            with pytest.raises(LabError, match=name):
                admit(mutated)


def test_base_and_dataclasses_have_the_same_fields():
    def names(cls):
        return {
            f.name: names(f.type)
            if dataclasses.is_dataclass(f.type) and f.type is not Duration  # a text outside
            else None
            for f in dataclasses.fields(cls)
        }

    def keys(config):
        return {k: keys(v) if isinstance(v, dict) else None for k, v in config.items()}

    want = keys(base.get_config().to_dict())
    assert names(RunConfig) == want


def test_identity_covers_the_experiment_and_not_its_place():
    reference = identity(admit(resolved()))
    for path, value in [
        ("name", "another"),
        ("study", "elsewhere"),
        ("execution.layout", "fsdp"),
        ("execution.workdir", "other"),
        ("execution.checkpoint_every_steps", 7),
        ("execution.accumulation", 4),
        ("execution.tensor", 8),
        ("execution.replicas", 4),
        ("execution.head_chunks", 3),
        ("execution.steps_per_dispatch", 4),
        ("execution.remat", "projections"),
        ("data.manual_dir", "somewhere"),
    ]:
        assert identity(admit(resolved(**{path: value}))) == reference, path
    seen = {reference}
    for path, value in [
        ("seed", 1),
        ("data.name", "eurosat"),
        ("tokenizer.levels", 32),
        ("model.width", 96),
        ("optimizer.learning_rate", 0.02),
        ("train.duration", "2 epochs"),
        ("train.batch_size", 64),
    ]:
        seen.add(identity(admit(resolved(**{path: value}))))
    assert len(seen) == 8


def test_config_json_is_admitted_again_with_the_same_identity():
    run = admit(resolved())
    assert identity(admit(plain(run))) == identity(run)
    assert admit(plain(run)) == run


def test_texts_become_numbers_and_flags():
    run = admit(
        resolved(
            **{
                "optimizer.learning_rate": "3e-3",
                "train.batch_size": "64",
                "execution.unroll_layers": "True",
            }
        )
    )
    assert run.optimizer.learning_rate == 3e-3
    assert run.train.batch_size == 64
    assert run.execution.unroll_layers is True
