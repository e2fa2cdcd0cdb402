"""The plan of a pod job: abstract steps are those that a run takes, and what it refuses.

What needs the TPU's compiler (make libtpu; python -m pytest -m tpu_backend) is marked.
"""

import json
import re

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

from configs.layouts import LAYOUTS
from lab.core import hlo, hlo_cost
from lab.core.chips import CHIPS, parse_slices, shape_text
from lab.core.errors import LabError
from lab.core.keys import Stream, key
from lab.core.layout import make_layout
from lab.launch import compile_job
from lab.launch.compile_job import World, abstract_job, compiled, lowered, planned_spec
from lab.launch.compile_plan import carry_out, sampler_settings
from lab.launch.compile_report import estimate, report
from lab.train.optimizer import numbers_at
from tests.launch.commands import command, refused
from tests.launch.planning import plan_of
from tests.models.worlds import config
from tests.train.jobs import job as real_job

FAMILIES = {  # a config's size and fields, then the sizes of its tokenizer
    "elm": ({"model.subcodes": 2}, {"vocabulary": 256, "subcodes": 2}),
    "llamagen": ({}, {"vocabulary": 256}),
    "mlm": ({}, {"vocabulary": 256}),
    "bigr": ({"model.subcodes": 24}, {"vocabulary": 2, "subcodes": 24}),
    "mar": ({}, {"vocabulary": 0, "channels": 16}),
    "ar_diffusion": ({}, {"vocabulary": 0, "channels": 16}),
    "dit": ({"model.patch": 2}, {"vocabulary": 0, "channels": 16}),
}


def planned_job(family, size, layout, devices, *, grid=(16, 16, 1), **more):
    fields, sizes = FAMILIES[family]
    run = config(size, family, **{**fields, "execution.layout": layout, **more})
    world = World(spec=planned_spec(grid, **{"subcodes": 1, **sizes}), classes=10, examples=1000)
    return abstract_job(run, make_layout(layout, LAYOUTS, devices), world)


def test_the_abstract_step_is_the_one_that_a_run_takes(tmp_path):
    """The same program text, lowered from shapes and from a run's own batch."""
    real = real_job(tmp_path, layout="fsdp", size="s1", **{"model.width": 32, "model.heads": 2})
    batch = real.place(real.train_batches().at(0), Stream.TRAIN, 0)
    step_key = key(real.run.seed, Stream.TRAIN, 0)
    taken = real.steps().train.lower(
        real.initial_state(), batch, step_key, numbers_at(real.run.optimizer, 0.1)
    )
    world = World(spec=real.spec, classes=3, examples=48)
    planned = abstract_job(real.run, real.layout, world)
    texts = [low.as_text() for low in (lowered(planned, "train"), taken)]
    ours, theirs = (re.sub(r"@\w+", "@function", text) for text in texts)  # their names are counted
    assert ours == theirs
    assert planned.total_steps == real.total_steps


@pytest.mark.parametrize("step", ["train", "evaluate", "sample"])
def test_a_report_of_a_step_on_the_devices_here(step):
    """FLOPs of the compiled program against those that the model counts for itself."""
    job = planned_job("elm", "s1", "ddp", jax.devices(), grid=(4, 4, 1))
    slices = parse_slices("v5e:2x4")
    settings = sampler_settings(job.run, job) if step == "sample" else None
    found = report(job, slices, step, compiled(job, step, settings=settings))
    assert found.memory.fits
    assert found.memory.by_use["parameters"] == 4 * sum(
        leaf.size for leaf in jax.tree.leaves(job.abstract_state["params"])
    )
    assert found.untold_loops == 0
    if step == "train":
        # Causal attention is computed in whole blocks, and the embedding's gradient is no product.
        assert 0.98 < found.program_flops / found.model_flops < 1.1
        reduced = [c for c in found.collectives if c.kind == "all-reduce" and c.axes == "data"]
        gradients = found.memory.by_use["parameters"]
        assert sum(c.wire_bytes for c in reduced) == pytest.approx(2 * 7 / 8 * gradients, rel=0.01)
    assert found.seconds.low <= found.seconds.high


def test_a_device_keeps_the_keys_and_values_of_its_own_images():
    """The cache of a sampler over eight devices is an eighth of that on one, images alike."""
    needed = {}
    for devices in (1, 8):
        more = {"train.evaluation_batch_size": 64, "model.class_dropout": 0.1}
        job = planned_job("elm", "s1", "fsdp", jax.devices()[:devices], **more)
        program = compiled(job, "sample", settings=sampler_settings(job.run, job)).program
        needed[devices] = program.memory_analysis().temp_size_in_bytes
    cache = 2 * 2 * 64 * 256 * 24 * 4  # keys and values, class and null class, positions, width
    assert needed[1] > cache
    assert needed[8] < needed[1] / 4


def test_the_estimate_is_work_over_peaks():
    slices = parse_slices("v5e:4x4", count=2)
    chip = slices.chip
    found = estimate(
        slices,
        flops=32 * chip.peak_flops_per_s,
        hbm_bytes=2 * chip.hbm_bytes_per_s,
        ici_bytes=6 * chip.link_bytes_per_s,
        dcn_bytes=4 * chip.dcn_bytes_per_s,
        collectives=1000,
    )
    assert (found.compute, found.memory, found.ici, found.dcn) == (1, 2, 3, 4)
    assert (found.low, found.high) == (4, pytest.approx(10.001))


COMMAND = ("-m", "lab.launch.compile", "--config")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("configs/elm.py:XL", "--topology", "v5e:3x5"), ("v5e:3x5", "16x16")),
        (("configs/elm.py:XL", "--topology", "v9:2x2"), ("v9:2x2", "v4, v5e")),
        (("configs/elm.py:XL", "--topology", "v5e:4x4", "--slices", "0"), ("0 slices",)),
        (("configs/elm.py:XL", "--topology", "v5e:4x4", "--steps", "tain"), ("tain", "train")),
        (("configs/elm.py:XL", "--topology", "v5e:4x4", "--classes", "-1"), ("--classes -1: ",)),
    ],
)
def test_bad_flags_are_one_line(arguments, words):
    refused(command(*COMMAND, *arguments), *words)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"config_name": "configs/elm.py:s3"}, "--classes: needed"),
        ({"config_name": "configs/elm.py:XL", "grid": "8x"}, "--grid 8x: "),
        ({"config_name": "configs/elm.py:XL", "vocabulary": -7}, "--vocabulary -7: at least 1"),
        ({"config_name": "configs/elm.py:XL", "examples": -5}, "--examples -5: at least 1"),
        ({"config_name": "configs/elm.py:XL", "subcodes": 0}, "--subcodes 0: at least 1"),
        ({"config_name": "configs/tokenizers/kl.py"}, "a generator is expected"),
    ],
)
def test_what_is_missing_is_named(flags, words):
    with pytest.raises(LabError, match=words):
        plan_of(topology="v5e:4x4", **flags)


def test_published_sizes_know_their_tokens():
    plan = plan_of("configs/elm.py:XXXL", "v5p:4x4x4")
    assert (plan.run.model.subcodes, plan.world.spec.vocabulary) == (2, 1024)
    assert (plan.world.classes, plan.world.examples) == (1000, 1_281_167)


# ------------------------------------------------------------------ the TPU's own compiler


@pytest.fixture(scope="module")
def tpu():
    """libtpu, and a jax that does not look for a TPU."""
    try:
        compile_job.tpu_environment()
    except LabError as error:
        pytest.skip(str(error))
    # Programs for devices that are not here cannot be read back from a cache.
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()
    yield
    jax.config.update("jax_enable_compilation_cache", True)


@pytest.mark.tpu_backend
@pytest.mark.parametrize("layout", sorted(LAYOUTS))
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_under_every_layout_compiles_for_a_slice_of_v5e(tpu, family, layout):
    slices = parse_slices("v5e:4x4")
    more = {"train.batch_size": 64, "execution.remat": "full"}
    job = planned_job(family, "s12", layout, compile_job.devices_of(slices), **more)
    found = report(job, slices, "train", compiled(job, "train"))
    assert found.memory.fits
    assert found.untold_loops == 0
    # With remat a step is at most four forward passes; heads of a diffusion are not computed anew.
    assert 0.98 < found.program_flops / found.model_flops < 1.5
    named = {axis for c in found.collectives for axis in c.axes.split("+")}
    assert set(job.layout.batch) <= named, "gradients cross every axis that splits the batch"


@pytest.mark.tpu_backend
@pytest.mark.parametrize("family", FAMILIES)
def test_evaluation_and_sampling_compile_too(tpu, family):
    slices = parse_slices("v5e:4x4")
    more = {"train.batch_size": 64, "train.evaluation_batch_size": 64}
    job = planned_job(family, "s6", "fsdp", compile_job.devices_of(slices), **more)
    for step in ("evaluate", "sample"):
        settings = sampler_settings(job.run, job)
        found = report(job, slices, step, compiled(job, step, settings=settings))
        assert found.memory.fits
        assert found.seconds.high > 0


@pytest.mark.tpu_backend
@pytest.mark.parametrize("name", CHIPS)
def test_every_generation_compiles_and_counts_alike(tpu, name):
    chip = CHIPS[name]
    slices = parse_slices(f"{name}:{shape_text(chip.shapes[1])}")
    devices = compile_job.devices_of(slices)
    assert len(devices) == slices.devices
    assert devices[0].device_kind == chip.kind
    job = planned_job("elm", "s6", "fsdp", devices, **{"train.batch_size": 64})
    found = report(job, slices, "train", compiled(job, "train"))
    # Attention whole, not half; that for v6e computes its scores four times instead of once.
    assert 0.98 < found.program_flops / found.model_flops < (1.45 if name == "v6e" else 1.3)


@pytest.mark.tpu_backend
def test_the_products_of_a_step_with_remat_to_the_last_one(tpu):
    """Closed form: three forward passes, and the blocks again but for their last product."""
    slices = parse_slices("v5e:4x4")
    more = {"train.batch_size": 64, "execution.remat": "full"}
    job = planned_job("elm", "s12", "fsdp", compile_job.devices_of(slices), **more)
    made = compiled(job, "train")
    tokens, d, hidden, depth = 64 * 256, 256, 688, 8
    attention = 4 * d * 256 * tokens  # whole, for the mask is applied afterwards
    block = 2 * tokens * (4 * d**2 + 3 * d * hidden) + attention
    head = 2 * tokens * d * 256 * 2  # two matrices side by side
    merge = 2 * 64 * 255 * 2 * d * d  # both sub-codes to one vector; nothing stands before the last
    expected = 3 * (depth * block + head + merge) + depth * (block - 2 * tokens * d * hidden)
    found = 16 * hlo_cost.product_flops(hlo.read(made.program.as_text()))
    assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.tpu_backend
def test_the_text_of_a_program_against_xlas_own_counts(tpu):
    """Each loop once, as XLA counts: what is left are element-wise FLOPs."""
    slices = parse_slices("v5p:2x2x1")
    job = planned_job("elm", "s9", "fsdp", compile_job.devices_of(slices))
    made = compiled(job, "train").program
    program = hlo.read(made.as_text())
    program.__dict__["runs"] = {name: float(n > 0) for name, n in program.runs.items()}
    cost = made.cost_analysis()
    assert hlo_cost.product_flops(program) == pytest.approx(cost["flops"], rel=0.08)


@pytest.mark.tpu_backend
def test_what_does_not_fit_says_by_how_much(tpu):
    slices = parse_slices("v5e:2x2")
    more = {"train.batch_size": 65536, "execution.remat": "none"}
    job = planned_job("elm", "s12", "ddp", compile_job.devices_of(slices), **more)
    found = report(job, slices, "train", compiled(job, "train"))
    assert not found.memory.fits
    assert found.memory.needed > slices.chip.usable_hbm_bytes
    assert found.seconds is None


@pytest.mark.tpu_backend
def test_the_command_and_its_search(tpu, tmp_path):
    flags = ("--topology", "v5e:2x2", "--classes", "10", "--examples", "2000")
    done = command(
        *COMMAND, "configs/elm.py:s3", *flags, "--layout", "fsdp", "--out", tmp_path / "a.json",
        timeout_s=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "fits" in done.stdout and "Traceback" not in done.stderr
    document = json.loads((tmp_path / "a.json").read_text())
    assert [step["step"] for step in document["steps"]] == ["train", "evaluate", "sample"]
    assert document["host_peak_bytes"] < 4 * 2**30
    searched = command(
        *COMMAND, "configs/elm.py:s3", *flags, "--search", "--layouts", "ddp,fsdp", "--json",
        timeout_s=300,
    )  # fmt: skip
    rows = json.loads(searched.stdout)["rows"]
    assert {row["layout"] for row in rows} == {"ddp", "fsdp"}
    assert all(row["fits"] for row in rows)


@pytest.mark.tpu_backend
def test_two_slices_talk_over_the_slower_network(tpu):
    slices = parse_slices("v5e:2x2", count=2)
    job = planned_job("elm", "s6", "hsdp", compile_job.devices_of(slices))
    found = report(job, slices, "train", compiled(job, "train"))
    assert found.seconds.dcn > 0 and found.seconds.ici > 0


@pytest.mark.tpu_backend
@pytest.mark.slow
def test_a_plan_of_seven_billion_needs_little_of_the_host(tpu):
    plan = plan_of(
        "configs/llamagen.py:7B",
        "v5p:4x4x8",
        layout="fsdp_tp",
        overrides={"train.batch_size": "512", "execution.remat": "full"},
    )
    found = carry_out(plan, ["train"], lambda line: None)
    assert found.fits
