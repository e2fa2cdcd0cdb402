"""What the main job reads of a sweep before its large run is trained."""

import json
import runpy

import jax
import pytest

from lab.launch.door import ROOT
from lab.launch.sweep import load_sweep
from lab.models import families

HERE = ROOT / "experiments" / "01_first_ladder"


@pytest.mark.parametrize("data", ["dead_leaves", "fashion_mnist"])
def test_the_size_that_is_forecast_is_known_before_it_is_trained(tmp_path, data):
    """`planned` reads the table that `sweep --list --json` prints: renamed fields broke it once."""
    ladder = runpy.run_path(str(HERE / "ladder.py"))
    sweep = runpy.run_path(str(HERE / "sweep.py"))
    argument = f"{data},0.01"
    spec, target = f"{HERE / 'sweep.py'}:{argument}", sweep["plan"](argument).forecast_run
    place = ["--only", target, f"--config.execution.workdir={tmp_path}"]
    (run,) = ladder["planned"](["lab.launch.sweep", spec, *place])
    (config,) = [r for r in load_sweep(spec, {}) if r.name == target]
    codes = families.Codes(vocabulary=16, grid=(8, 8, 3), classes=10)
    make = families.builder(config.model, codes, families.Running(compute_dtype="float32"))
    blocks = jax.eval_shape(make, jax.random.key(0)).parameters().blocks
    assert run["params"] == blocks == 332_352
    command = ladder["forecast"](tmp_path, tmp_path / "forecast.json", int(run["params"]))
    assert command[command.index("--n") + 1] == "332352"
    frozen = tmp_path / "forecast.json"
    frozen.write_text(json.dumps({"identities": [run["identity"]]}))
    assert ladder["is_of_this_sweep"](frozen, ["lab.launch.sweep", spec, *place])
    frozen.write_text('{"identities": ["another"]}')
    assert not ladder["is_of_this_sweep"](frozen, ["lab.launch.sweep", spec, *place])
