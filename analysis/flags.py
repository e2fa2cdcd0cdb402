"""Flags that several commands share; without NumPy, so that --help answers at once."""

from __future__ import annotations

import argparse

LOSSES = ("squares", "huber", "soft_l1", "lad", "asymmetric")
VARIABLES = {"n": "parameters", "d": "tokens", "c": "FLOPs", "u": "unique tokens"}


def add_variables(parser: argparse.ArgumentParser, of: str) -> None:
    """--n, --d, --c and --u of a run; `of` ends the help of each."""
    for name, what in VARIABLES.items():
        parser.add_argument(f"--{name}", type=float, help=f"{what} of {of}")
