"""What to type next: suggested when a command has done its work."""

from collections.abc import Sequence

from lab.core.config import AnyRun, RunConfig, run_directory


def after_run(run: AnyRun) -> str:
    """A generator's study is looked at; a tokenizer encodes."""
    directory = run_directory(run)
    if isinstance(run, RunConfig):
        return f"next: python -m analysis table {directory.parent}"
    return (
        f"next: python -m lab.launch.encode --tokenizer {directory} --data {run.data.name} "
        f"--out codes/{run.name}"
    )


def after_study(runs: Sequence[AnyRun]) -> str:
    """A report of a generator's study; the encode job for the first tokenizer of one."""
    if isinstance(runs[0], RunConfig):
        return f"next: python -m analysis report {run_directory(runs[0]).parent}"
    return after_run(runs[0])
