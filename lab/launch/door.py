"""From a command line to an admitted config, and from an error to one line and an exit code.

Nothing here imports jax: a wrong field is refused within a second.
"""

import argparse
import importlib.util
import inspect
import os
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from configs.layouts import LAYOUTS
from lab.core.config import AnyRun, RunConfig, admit
from lab.core.errors import ExitCode, LabError, NotSaved, Stopped
from lab.core.fields import nearest, overlay

ROOT = pathlib.Path(__file__).resolve().parents[2]


def leave(main: Callable[[Sequence[str]], ExitCode]) -> NoReturn:
    """Run a command; bad input becomes one line on standard error and exit code 2."""
    try:
        code = main(sys.argv[1:])
    except (LabError, OSError) as error:
        print(f"error: {error_line(error)}", file=sys.stderr)
        code = error_code(error)
    except (KeyboardInterrupt, Stopped):  # before the handlers stood: nothing was begun
        code = ExitCode.INTERRUPTED
    store = sys.modules.get("lab.core.orbax_arrays")
    failed = store is not None and store.a_save_failed()  # of a run that another took over, say
    if failed or (code != ExitCode.DONE and "orbax.checkpoint" in sys.modules):
        _leave_threads(code)
    sys.exit(int(code))


def _leave_threads(code: ExitCode) -> NoReturn:
    """Leave at once: where a save failed, Orbax's threads may wait twenty minutes for its files,
    and Python at its end for them (tools/faults.py, "read-only").
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(int(code))


def error_line(error: LabError | OSError) -> str:
    """What a user is told of it."""
    if isinstance(error, LabError):
        return str(error)
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}"


def error_code(error: LabError | OSError) -> ExitCode:
    """With which code a process leaves for it."""
    return ExitCode.NOT_SAVED if isinstance(error, NotSaved) else ExitCode.BAD_INPUT


class Parser(argparse.ArgumentParser):
    """Refuses a flag in one line, as every other bad input is refused."""

    def error(self, message: str) -> NoReturn:
        """Called by argparse."""
        raise LabError(f"{message}; see {self.prog} --help")


def parse(
    parser: argparse.ArgumentParser, argv: Sequence[str]
) -> tuple[argparse.Namespace, dict[str, str]]:
    """The parsed flags, and `--config.a.b=value` flags as flat overrides."""
    others, overrides = _take_overrides(argv)
    known, rest = parser.parse_known_args(others)
    if rest:
        flags = [s for action in parser._actions for s in action.option_strings]
        raise LabError(f"{rest[0]}: no such flag; {nearest(rest[0].split('=')[0], flags)}")
    return known, overrides


def _take_overrides(argv: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Other arguments and overrides; first, lest argparse take a value for a positional one."""
    others: list[str] = []
    overrides: dict[str, str] = {}
    waiting = list(argv)
    while waiting:
        flag = waiting.pop(0)
        if not flag.startswith("--config."):
            others.append(flag)
            continue
        path, equals, value = flag.removeprefix("--config.").partition("=")
        if not equals:
            if not waiting or waiting[0].startswith("--"):
                raise LabError(f"{flag}: a value is missing")
            value = waiting.pop(0)
        overrides[path] = value
    return others, overrides


def load_function(spec: str, function: str) -> Callable[[], Any]:
    """The function of a Python file, its argument after a colon bound: "configs/elm.py:s3"."""
    path_text, _, argument = spec.partition(":")
    path = pathlib.Path(path_text)
    path = path if path.exists() else ROOT / path_text
    if not path.is_file():
        raise LabError(f"{path_text}: no such file")
    module_spec = importlib.util.spec_from_file_location(path.stem, path)
    if module_spec is None or module_spec.loader is None:
        raise LabError(f"{path_text}: not a Python file")
    module = importlib.util.module_from_spec(module_spec)
    try:
        module_spec.loader.exec_module(module)
    except SyntaxError as error:
        raise LabError(f"{error.filename}, line {error.lineno}: {error.msg}") from None
    except (ImportError, NameError, AttributeError, KeyError) as error:
        raise LabError(f"{path_text}: {type(error).__name__}: {error}") from None
    if not hasattr(module, function):
        raise LabError(f"{path_text}: has no function {function}()")
    target = getattr(module, function)
    arguments = [argument] if argument else []
    try:
        inspect.signature(target).bind(*arguments)
    except TypeError as error:
        raise LabError(f"{spec}: {function}(): {error}") from None
    return lambda: target(*arguments)


def load_config(spec: str, overrides: Mapping[str, Any]) -> AnyRun:
    """The admitted config of a file with flat overrides laid over it."""
    from lab.models import families

    try:
        config = load_function(spec, "get_config")()
    except ValueError as error:
        raise LabError(f"{spec}: {error}") from None
    config = overlay(config, overrides)
    if "model" in config:
        families.fill_sizes(config.model)
        fill_trained(config.tokenizer)
    run = admit(config)
    if isinstance(run, RunConfig):
        families.check_parts(run.model)
    if run.execution.layout not in LAYOUTS:
        raise LabError(
            f'config.execution.layout = "{run.execution.layout}": '
            f"{nearest(run.execution.layout, LAYOUTS)}"
        )
    return run


def fill_trained(tokenizer: Any) -> None:
    """Set the identity of a config's trained tokenizer from its run directory, or check it."""
    found = pathlib.Path(tokenizer.run).name
    if found and tokenizer.trained not in ("", found):
        raise LabError(
            f'config.tokenizer.run = "{tokenizer.run}": the run of the tokenizer '
            f"{tokenizer.trained} is expected (config.tokenizer.trained)"
        )
    tokenizer.trained = found or tokenizer.trained
