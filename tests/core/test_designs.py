"""Designs: which runs they are, against lists written by hand."""

import dataclasses

import pytest

from lab.core.config import RunConfig
from lab.core.designs import cooldowns, grid, isoflop, ladder, learning_rates, seeds
from lab.core.errors import LabError
from lab.core.program import program
from lab.core.sweep import product
from lab.launch.door import load_config

ELM = "configs/elm.py"


def named(sweep):
    return {run["name"]: run for run in sweep}


def test_a_ladder_has_one_ratio():
    assert ladder(ELM, ["s1", "s2"]) == [
        {
            "config": f"{ELM}:{size}",
            "name": size,
            "train.duration": "20 tokens_per_parameter",
            "rung": size,
        }
        for size in ("s1", "s2")
    ]


def test_an_isoflop_grid_has_its_sizes_at_each_budget():
    made = isoflop(ELM, {1e9: ["s1"], 3e9: ["s1", "s2"]}, [1e9, 3e9])
    found = [(run["name"], run["train.duration"], run["rung"]) for run in made]
    assert found == [
        ("s1-1e+09F", "1000000000 flops", "1e+09 FLOPs"),
        ("s1-3e+09F", "3000000000 flops", "3e+09 FLOPs"),
        ("s2-3e+09F", "3000000000 flops", "3e+09 FLOPs"),
    ]
    assert [run["rung"] for run in isoflop(ELM, ["s1"], [1, 2])] == ["1 FLOPs", "2 FLOPs"]
    with pytest.raises(LabError, match="no sizes for the budget"):
        isoflop(ELM, {1e9: ["s1"]}, [2e9])


def test_branches_are_the_runs_of_the_grid_and_one_trunk_a_size():
    tokens = [1e6, 2e6]
    made = cooldowns(ELM, ["s1"], tokens, fraction=0.25)
    branches = [run for run in made if "execution.trunk" in run]
    place = {"execution.trunk", "optimizer.schedule", "optimizer.cooldown_fraction"}
    kept = [{k: v for k, v in run.items() if k not in place} for run in branches]
    assert kept == grid(ELM, ["s1"], tokens)
    (trunk,) = [run for run in made if "execution.branches" in run]
    assert trunk["train.duration"] == "1500000 tokens" == branches[0]["execution.trunk"]
    assert trunk["execution.branches"] == "1000000 tokens, 2000000 tokens"
    assert trunk["optimizer.schedule"] == "constant"
    with pytest.raises(LabError, match="fraction"):
        cooldowns(ELM, ["s1"], tokens, fraction=1.0)


def test_amounts_keep_their_digits():
    assert isoflop(ELM, ["s1"], [1234567890.0])[0]["train.duration"] == "1234567890 flops"
    made = ladder(ELM, ["s1"], tokens_per_parameter=20.1234567)
    assert made[0]["train.duration"] == "20.1234567 tokens_per_parameter"
    with pytest.raises(LabError, match="at least one length"):
        cooldowns(ELM, ["s1"], [])


def test_names_join_in_a_product():
    made = product(learning_rates(ELM, ["s1"], [0.01, 0.02]), seeds(2))
    names = ["s1-lr0.01-seed0", "s1-lr0.01-seed1", "s1-lr0.02-seed0", "s1-lr0.02-seed1"]
    assert list(named(made)) == names
    assert named(made)["s1-lr0.02-seed1"]["seed"] == 1
    with pytest.raises(LabError, match="at least 1"):
        seeds(0)


@pytest.mark.parametrize(
    "more",
    [
        {"seed": 3},
        {"optimizer.learning_rate": 0.5},
        {"optimizer.weight_decay": 0.5},
        {"optimizer.schedule": "cosine"},
        {"optimizer.cooldown_fraction": 0.5},
        {"optimizer.final_fraction": 0.5},
        {"optimizer.warmup": "3 steps"},
        {"train.duration": "7 epochs"},
        {"train.log_every_steps": 3},
        {"name": "other"},
        {"execution.workdir": "elsewhere"},
        {"execution.keep_last": 7},
    ],
)
def test_numbers_do_not_change_the_program(more):
    assert program(load_config(f"{ELM}:s2", more)) == program(load_config(f"{ELM}:s2", {}))


@pytest.mark.parametrize(
    "more",
    [
        {"model.depth": 7},
        {"train.batch_size": 64},
        {"optimizer.beta2": 0.9},
        {"optimizer.ema_decay": 0.9},
        {"optimizer.clip_norm": 0.0},
        {"tokenizer.levels": 5},
        {"data.name": "eurosat"},
        {"train.guard.policy": "skip"},
        {"execution.remat": "full"},
        {"execution.steps_per_dispatch": 4},
        {"execution.compute_dtype": "bfloat16"},
    ],
)
def test_all_else_does(more):
    assert program(load_config(f"{ELM}:s2", more)) != program(load_config(f"{ELM}:s2", {}))


def test_so_does_what_a_step_takes_beside_the_numbers():
    """Weights of a distance that do not train, and rows of codes in the place of images."""

    def weighed(file):
        given = {"losses.perceptual": 1.0, "losses.perceptual_file": file}
        return program(load_config("configs/tokenizers/vqgan.py:small", given))

    assert weighed("a") != weighed("b")
    run = load_config(f"{ELM}:s2", {})
    assert isinstance(run, RunConfig)
    codes = dataclasses.replace(run, tokenizer=dataclasses.replace(run.tokenizer, codes="folder"))
    assert program(codes) != program(run)
