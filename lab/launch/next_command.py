"""What to type next: suggested when a command has done its work."""

from collections.abc import Sequence

from lab.core.config import AnyRun, ClassifierRunConfig, RunConfig, run_directory


def after_run(run: AnyRun) -> str:
    """A generator's study is looked at; a tokenizer encodes, a classifier judges a generator."""
    directory = run_directory(run)
    if isinstance(run, RunConfig):
        return f"next: python -m analysis table {directory.parent}"
    if isinstance(run, ClassifierRunConfig):
        return f"next: python -m lab.launch.evaluate RUN --what fd --extractor {directory}"
    return (
        f"next: python -m lab.launch.encode --tokenizer {directory} --data {run.data.name} "
        f"--out codes/{run.name}"
    )


def after_study(runs: Sequence[AnyRun]) -> str:
    """A report of a generator's study; what the first run of another is for."""
    if isinstance(runs[0], RunConfig):
        return f"next: python -m analysis report {run_directory(runs[0]).parent}"
    return after_run(runs[0])
