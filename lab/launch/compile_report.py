"""What a compiled step means: memory by use, work, traffic, and a time that is an estimate.

FLOPs that a model needs are those of lab/core/counts.py; those that the program does (with what it
computes anew in the backward pass) are read from the compiled program, and so are bytes and
collectives. A time is the work over the chip's published peaks, an interval: its lower end where
computing, memory and every network hide behind each other, its upper end where nothing hides.
"""

import dataclasses
import math
from typing import Any

from lab.core import hlo, hlo_cost
from lab.core.chips import Slices
from lab.core.counts import TRAINING
from lab.core.hlo_bytes import hbm_bytes
from lab.launch.compile_job import Compiled

DAY_S = 86400.0
LATENCY_S = 1e-6


@dataclasses.dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes of HBM on one device."""

    by_use: dict[str, float]
    needed: float
    capacity: float

    @property
    def fits(self) -> bool:
        """Whether the compiler found room."""
        return self.needed <= self.capacity


@dataclasses.dataclass(frozen=True, kw_only=True)
class Seconds:
    """An estimate of one call, part by part."""

    compute: float
    memory: float
    ici: float
    dcn: float
    latency: float  # of the collectives one after the other

    @property
    def low(self) -> float:
        """Everything hides behind the slowest part."""
        return max(self.compute, self.memory, self.ici, self.dcn)

    @property
    def high(self) -> float:
        """Nothing hides."""
        return self.compute + self.memory + self.ici + self.dcn + self.latency


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepReport:
    """One step on one slice; work and traffic are missing where it does not fit."""

    step: str
    images: int  # of one call
    memory: Memory
    lower_s: float
    compile_s: float
    model_flops: float | None  # of one call, all devices; None of sampling
    program_flops: float | None = None  # of one call, all devices
    hbm_bytes: float | None = None  # one device
    collectives: tuple[hlo_cost.Collective, ...] = ()
    untold_loops: int = 0  # whose turns depend on data: counted once
    kernels: bool = False  # whether products stand in kernels, which the text does not show
    seconds: Seconds | None = None
    mfu: tuple[float, float] | None = None  # low, high
    images_per_s: tuple[float, float] | None = None  # low, high

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        row = dataclasses.asdict(self)
        row["memory"]["fits"] = self.memory.fits
        if self.seconds:
            row["seconds"] |= {"low": self.seconds.low, "high": self.seconds.high}
        return row


@dataclasses.dataclass(frozen=True, kw_only=True)
class Whole:
    """The whole run at the estimated speed: low and high."""

    steps: int
    tokens_per_day: tuple[float, float]
    days: tuple[float, float]
    chip_hours: tuple[float, float]


def report(job: Any, slices: Slices, step: str, compiled: Compiled) -> StepReport:
    """All that is known of a compiled step."""
    images = job.run.train.batch_size if step == "train" else job.run.train.evaluation_batch_size
    model_flops = _model_flops(job, step, images)
    base = StepReport(
        step=step,
        images=images,
        memory=_memory(job, slices, step, compiled),
        lower_s=compiled.lower_s,
        compile_s=compiled.compile_s,
        model_flops=model_flops,
    )
    if compiled.program is None:
        return base
    program = hlo.read(compiled.program.as_text())
    mesh = dict(job.layout.mesh.shape)
    flops = hlo_cost.product_flops(program) * slices.devices
    moved = hbm_bytes(program)
    traffic = tuple(hlo_cost.collectives(program, mesh, slices=slices.count))
    kernels = _has_kernels(program)
    seconds = estimate(
        slices,
        flops=max(flops, model_flops or 0.0) if kernels else flops,
        hbm_bytes=moved,
        ici_bytes=sum(c.wire_bytes for c in traffic if not c.between_slices),
        dcn_bytes=sum(c.wire_bytes for c in traffic if c.between_slices),
        collectives=sum(c.times for c in traffic),
    )
    peak = slices.chips * slices.chip.peak_flops_per_s
    ends = (seconds.high, seconds.low)
    return dataclasses.replace(
        base,
        program_flops=flops,
        hbm_bytes=moved,
        collectives=traffic,
        untold_loops=len(program.untold),
        kernels=kernels,
        seconds=seconds,
        mfu=_pair(model_flops / (s * peak) for s in ends) if model_flops else None,
        images_per_s=_pair(images / s for s in ends),
    )


def _pair(values: Any) -> tuple[float, float]:
    low, high = values
    return low, high


def _has_kernels(program: hlo.Program) -> bool:
    """Whether products stand in kernels that the text does not show."""
    return any(
        instruction.attribute("custom_call_target") == '"tpu_custom_call"'
        for computation in program.computations.values()
        for instruction in computation.instructions.values()
        if instruction.opcode == "custom-call"
    )


def _model_flops(job: Any, step: str, images: int) -> float | None:
    per_image = job.flops_per_token.total * job.spec.tokens_per_image  # forward and backward
    if step == "train":
        return images * per_image
    return images * per_image / TRAINING if step == "evaluate" else None


def estimate(
    slices: Slices,
    *,
    flops: float,
    hbm_bytes: float,
    ici_bytes: float,
    dcn_bytes: float,
    collectives: float,
) -> Seconds:
    """Work over peaks; `flops` of all devices, bytes and collectives of one.

    A collective is given two links of a chip, one dimension of the torus both ways: the least that
    an axis of the mesh has, and all that it has if it lies along one dimension. The start of one
    is taken to cost `LATENCY_S`, which no data sheet states.
    """
    chip = slices.chip
    return Seconds(
        compute=flops / (slices.chips * chip.peak_flops_per_s),
        memory=hbm_bytes * chip.devices / chip.hbm_bytes_per_s,
        ici=ici_bytes * chip.devices / (2 * chip.link_bytes_per_s),
        dcn=dcn_bytes * chip.devices / chip.dcn_bytes_per_s,
        latency=collectives * LATENCY_S,
    )


def _memory(job: Any, slices: Slices, step: str, compiled: Compiled) -> Memory:
    state = job.abstract_state
    by_use = {"parameters": _shard_bytes(state["params"])}
    if step == "train":
        by_use["moments"] = _shard_bytes(state["opt"])
        if state["ema"] is not None:
            by_use["average"] = _shard_bytes(state["ema"])
    capacity = float(slices.chip.usable_hbm_bytes)
    if compiled.program is None:
        assert compiled.needed_bytes is not None
        known = sum(by_use.values())
        by_use["temporaries and the rest"] = max(0.0, compiled.needed_bytes - known)
        return Memory(by_use=by_use, needed=compiled.needed_bytes, capacity=capacity)
    found = compiled.program.memory_analysis()
    known = sum(by_use.values())
    by_use["batch and tables"] = max(0.0, found.argument_size_in_bytes - known)
    by_use["results"] = float(found.output_size_in_bytes - found.alias_size_in_bytes)
    by_use["temporaries"] = float(found.temp_size_in_bytes)
    by_use["program"] = float(found.generated_code_size_in_bytes)
    return Memory(by_use=by_use, needed=sum(by_use.values()), capacity=capacity)


def _shard_bytes(tree: Any) -> float:
    """What one device holds of an abstract tree."""
    import jax

    total = 0.0
    for leaf in jax.tree.leaves(tree):
        shape = leaf.sharding.shard_shape(leaf.shape)
        total += math.prod(shape) * leaf.dtype.itemsize
    return total


def state_bytes(job: Any) -> float:
    """What one device holds of the state: what no choice of batch or remat can save."""
    state = job.abstract_state
    return _shard_bytes({k: v for k, v in state.items() if v is not None})


def whole(job: Any, slices: Slices, train: StepReport) -> Whole | None:
    """The whole run, where the training step fits."""
    if train.seconds is None:
        return None
    steps = job.total_steps
    tokens = job.tokens_per_step
    ends = (train.seconds.low, train.seconds.high)
    days = _pair(steps * s / DAY_S for s in ends)
    return Whole(
        steps=steps,
        tokens_per_day=_pair(tokens * DAY_S / s for s in ends[::-1]),
        days=days,
        chip_hours=_pair(d * 24 * slices.chips for d in days),
    )
