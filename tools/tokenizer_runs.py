"""A command that is given run directories of tokenizers: its flags, and how it fails."""

import argparse
import pathlib
import sys
from collections.abc import Callable

from lab.core.errors import LabError


def parser_of(doc: str | None) -> argparse.ArgumentParser:
    """A parser with the run directories; `doc` is the module's own."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=pathlib.Path, help="run directories of tokenizers")
    return parser


def exit_code(work: Callable[[], None]) -> int:
    """0 after the work; 2 and one line where it raises LabError."""
    try:
        work()
    except LabError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0
