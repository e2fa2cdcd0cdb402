"""A tokenizer's run directory from weights that a file holds, judged before it is written."""

import itertools
from collections.abc import Callable
from typing import Any

import jax

from lab.core.config import TokenizerRunConfig, run_directory
from lab.core.record import Record
from lab.core.store import Store, tree_sha256
from lab.core.weights import WeightFile, assign
from lab.launch.claim import HeldElsewhere, claimed
from lab.launch.runner import make_job, write_config
from lab.tokenizers.build import autoencoder_builder, network_spec
from lab.tokenizers.names import NameMap
from lab.train.tokenizer_job import TokenizerJob

Show = Callable[[str, int, int | None], None]  # what is being done, how much of how much


def adopt_run(
    run: TokenizerRunConfig, file: WeightFile, names_of: Callable[..., NameMap], show: Show
) -> dict[str, Any]:
    """Write the run directory and give its evaluation's row; `show` is told how far it is.

    The record has a header, one evaluation and an end, all at step 0; the checkpoint holds the
    parameters alone.
    """
    directory = run_directory(run)
    with claimed(directory) as ours:
        if not ours:
            raise HeldElsewhere(f"{directory}: another process is at it")
        leaves = fitted_leaves(run, file, names_of)  # refused before any image is prepared
        job = make_job(run, lambda p: show(f"preparing {p.what}", p.done, p.total))
        assert isinstance(job, TokenizerJob)
        params = jax.tree.unflatten(jax.tree.structure(job.abstract_state["params"]), leaves)
        placed = jax.device_put(params, job.layout.replicated())
        found = job.evaluate(job.steps(), placed, between=judging(job, show))
        row = found.row()
        write_config(directory, run)
        found.save(directory, step=0)
        with Store(directory / "checkpoints") as store:
            store.save(0, {"params": params}, metrics={**job.counted(), **row})
        _write_record(job, row, digest=tree_sha256(params))
    return row


def fitted_leaves(
    run: TokenizerRunConfig, file: WeightFile, names_of: Callable[..., NameMap]
) -> list[Any]:
    """The leaves of the autoencoder in their order; LabError names what does not fit."""
    mapped = names_of(network_spec(run))
    abstract = jax.eval_shape(autoencoder_builder(run, compute_dtype="float32"), jax.random.key(0))
    return jax.tree.leaves(assign(abstract, file, mapped.names, ignored=mapped.ignored))


def judging(job: TokenizerJob, show: Show) -> Callable[[], None]:
    """What an evaluation calls twice a batch, as it is handed out and as it comes back."""
    images, batch = len(job.images.validation.rows), job.run.train.evaluation_batch_size
    calls = itertools.count()

    def told() -> None:
        show("judging, images", min(next(calls) * batch // 2, images), images)

    return told


def _write_record(job: TokenizerJob, row: dict[str, Any], *, digest: str) -> None:
    path = job.directory / "record.jsonl"
    path.unlink(missing_ok=True)  # of an earlier time: the same weights, judged again
    record = Record(path, {**job.header(), "steps": 0}, step=0)
    about = {"split": "validation", "weights": "raw"}
    record.append({"kind": "evaluation", "step": 0, **job.amounts(0), **about, **row})
    record.append({"kind": "end", "status": "finished", "step": 0, "params_sha256": digest})
    record.sync()
    record.close()
