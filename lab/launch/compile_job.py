"""The steps of a run, lowered and compiled for a TPU slice that is not here.

Nothing is allocated: data are known by their number, the tokenizer by its sizes.
"""

import dataclasses
import importlib.metadata
import importlib.util
import os
import pathlib
import re
import sys
import time
from typing import Any

from lab.core.chips import Slices
from lab.core.config import RunConfig
from lab.core.errors import LabError
from lab.tokenizers.spec import TokenSpec

# Apart from the other packages: where libtpu is importable, every start of jax looks for a TPU.
LIBTPU = pathlib.Path(".cache/libtpu")
STEPS = ("train", "evaluate", "sample")
TPU_ENVIRONMENT = {  # what libtpu asks of its host, which is no TPU's here
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-16",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # two plans may compile at a time: no chip is held
}


def planned_spec(
    grid: tuple[int, int, int], *, vocabulary: int, subcodes: int, channels: int = 0
) -> TokenSpec:
    """The sizes of a tokenizer that is not here, of 256 x 256 RGB images; one slot a cell."""
    rows, columns, _ = grid
    return TokenSpec(
        name="planned",
        vocabulary=vocabulary,
        tokens_per_image=rows * columns,
        subcodes=subcodes,
        dims_per_image=256 * 256 * 3,
        grid=grid,
        identity="planned",
        channels=channels,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class World:
    """What data and tokenizer say of a run that has neither here."""

    spec: TokenSpec
    classes: int
    examples: int


@dataclasses.dataclass(frozen=True)
class Unread:
    """Rows of which only the number is known."""

    count: int
    are_images: bool = False
    in_memory: bool = False
    views: int = 1

    def __len__(self) -> int:
        return self.count

    def rows(self, indices: Any, views: Any = None) -> Any:
        """There are none."""
        raise LabError("a compiled plan has no data to read")


@dataclasses.dataclass(frozen=True)
class Sized:
    """A tokenizer of which only the sizes are known."""

    spec: TokenSpec


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compiled:
    """A compiled step, or why there is none."""

    program: Any  # jax.stages.Compiled; None where it does not fit
    lower_s: float
    compile_s: float
    needed_bytes: float | None = None  # of HBM, as the compiler says where it does not fit


def tpu_environment() -> None:
    """Find libtpu and keep jax from looking for a TPU here; before jax is imported.

    Raises LabError where libtpu, which has the compiler, is not installed.
    """
    if LIBTPU.is_dir():
        sys.path.insert(0, str(LIBTPU))
    if importlib.util.find_spec("libtpu") is None:
        raise LabError(
            f"libtpu, which has the TPU's compiler, is not installed: make libtpu, or pip install "
            f'--no-deps --target {LIBTPU} "{libtpu_version()}"'
        )
    os.environ["JAX_PLATFORMS"] = "cpu"
    # A program for devices that are not here is written into a cache and cannot be read back.
    os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"
    for name, value in TPU_ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def libtpu_version() -> str:
    """The requirement that the installed jax states: another may not read its programs."""
    for line in importlib.metadata.requires("jax") or ():
        if line.startswith("libtpu"):
            return line.partition(";")[0].strip()
    return "libtpu"


def devices_of(slices: Slices) -> list[Any]:
    """The devices of slices that need not exist."""
    from jax.errors import JaxRuntimeError
    from jax.experimental import topologies

    more: dict[str, Any] = {}
    if slices.chip.libtpu_config != "default":
        more["chip_config_name"] = slices.chip.libtpu_config
    if slices.count > 1:
        more["num_slices"] = slices.count
    if slices.chips < slices.chip.chips_per_host:
        more["chips_per_host_bounds"] = (1, 1, 1)
    more["topology_name"] = slices.topology
    try:
        found = topologies.get_topology_desc(platform="tpu", **more).devices
    except JaxRuntimeError as error:
        raise LabError(f"topology {slices.name}: libtpu: {_first_line(error)}") from None
    return list(found)


def abstract_job(run: RunConfig, layout: Any, world: World) -> Any:
    """The real job of the run under a layout, on data that are not read."""
    from lab.train.generator_job import GeneratorJob
    from lab.train.job import Images, Split

    def split(examples: int) -> Split:
        named = run.data.name
        return Split(rows=Unread(examples), name=named, digest="", classes=world.classes)

    examples = run.data.train_examples or world.examples
    images = Images(train=split(examples), validation=split(run.data.validation_examples))
    return GeneratorJob(run, layout=layout, tokenizer=Sized(world.spec), images=images)


def lowered(job: Any, step: str, *, settings: Any = None) -> Any:
    """One step, traced and lowered: "train", "evaluate" or "sample"."""
    arguments = {"train": _train_arguments, "evaluate": _evaluate_arguments}
    if step == "sample":
        import jax

        program = _sampler(job, settings)
        with jax.sharding.use_abstract_mesh(job.layout.abstract_mesh):
            return program.function.lower(*program.arguments, **program.static)
    return getattr(job.steps(), step).lower(*arguments[step](job))


def _rows(job: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    import jax

    return jax.ShapeDtypeStruct(shape, dtype, sharding=job.layout.batch_sharding())


def abstract_batch(job: Any, images: int) -> dict[str, Any]:
    """A batch as `GeneratorJob.place` gives it."""
    import jax.numpy as jnp

    numbers = job.spec.channels or job.run.model.subcodes
    small = 0 < job.spec.vocabulary <= 256  # as tables of tokens keep them
    dtype = jnp.float32 if job.spec.channels else jnp.uint8 if small else jnp.int32
    return {
        "codes": _rows(job, (images, job.spec.tokens_per_image, numbers), dtype),
        "label": _rows(job, (images,), jnp.int32),
        "weight": _rows(job, (images,), jnp.float32),
    }


def _train_arguments(job: Any) -> tuple[Any, ...]:
    import jax
    import jax.numpy as jnp

    from lab.train.optimizer import Numbers

    key = jax.eval_shape(lambda: jax.random.key(0))
    batch = abstract_batch(job, job.run.train.batch_size)
    number = jax.ShapeDtypeStruct((), jnp.float32)
    return job.abstract_state, batch, key, Numbers(number, number)


def _evaluate_arguments(job: Any) -> tuple[Any, ...]:
    import jax.numpy as jnp

    images = job.run.train.evaluation_batch_size
    batch = abstract_batch(job, images) | {"number": _rows(job, (images,), jnp.int32)}
    if job.spec.channels:
        batch["posterior_nats"] = _rows(job, (images,), jnp.float32)
    return job.abstract_state["params"], batch


def _sampler(job: Any, settings: Any) -> Any:
    """The family's sampler on parameters that lie as in training."""
    import jax
    import jax.numpy as jnp

    from lab.sampling.conditions import image_keys
    from lab.sampling.sampler import program

    images = job.run.train.evaluation_batch_size
    rows = job.layout.batch_sharding()
    keys = jax.eval_shape(lambda: image_keys(0, jnp.zeros(images, jnp.int32)))
    keys = jax.ShapeDtypeStruct(keys.shape, keys.dtype, sharding=rows)
    params, label = job.abstract_state["params"], _rows(job, (images,), jnp.int32)
    made = program(params, label, keys, settings)
    whole = job.layout.replicated()
    # Small tables that the sampler starts from are arrays of this host: of them only the shapes.
    rest = [jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole) for x in made.arguments[3:]]
    return made._replace(arguments=(*made.arguments[:3], *rest))


def compiled(job: Any, step: str, *, settings: Any = None) -> Compiled:
    """Lower and compile; what does not fit into the chip's memory is no error but a finding."""
    from jax.errors import JaxRuntimeError

    began_s = time.monotonic()
    low = lowered(job, step, settings=settings)
    lowered_s = time.monotonic()
    program, needed = None, None
    try:
        program = low.compile()
    except JaxRuntimeError as error:
        needed = _needed_bytes(str(error))
        if needed is None:
            raise LabError(f"the TPU compiler refuses the step: {_first_line(error)}") from None
    return Compiled(
        program=program,
        needed_bytes=needed,
        lower_s=lowered_s - began_s,
        compile_s=time.monotonic() - lowered_s,
    )


_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def _needed_bytes(text: str) -> float | None:
    """How much HBM a step wants that the compiler refuses for want of it; else None."""
    if "RESOURCE_EXHAUSTED" not in text:
        return None
    found = re.search(r"\(([\d.]+)([KMGT]?)\) exceeds available", text) or re.search(
        r"Used ([\d.]+)([KMGT]?) of [\d.]+[KMGT]? hbm", text
    )
    return float(found[1]) * _UNITS[found[2]] if found else None


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
