"""Flags that several commands share; without NumPy, so that --help answers at once."""

from __future__ import annotations

import argparse

AVERAGE = "average"  # as a form: the average of all laws that fit the table
LOSSES = ("squares", "huber", "soft_l1", "lad", "asymmetric")
UNITS = ("nats/token", "nats/image", "bits/image", "bits/dim")
VARIABLES = {"n": "parameters", "d": "tokens", "c": "FLOPs", "u": "unique tokens"}


def add_variables(parser: argparse.ArgumentParser, of: str) -> None:
    """--n, --d, --c and --u of a run; `of` ends the help of each."""
    for name, what in VARIABLES.items():
        parser.add_argument(f"--{name}", type=float, help=f"{what} of {of}")


def add_quantity(parser: argparse.ArgumentParser) -> None:
    """--metric and --unit: what is in the place of the loss, and its unit."""
    parser.add_argument(
        "--metric", metavar="M",
        help="a metric of quality.jsonl in the place of the loss; M:3, M:last, M:best of layers",
    )  # fmt: skip
    parser.add_argument("--unit", choices=UNITS, help="of the loss (nats/token)")


def add_by(parser: argparse.ArgumentParser) -> None:
    """--by: laws of several families side by side."""
    parser.add_argument(
        "--by", action="append", metavar="COLUMN",
        help="a law for each family (or tokenizer, ...) in one plot, in bits/image or --unit",
    )  # fmt: skip


def of_unique_tokens(options: argparse.Namespace) -> bool:
    """True where --form names a law of U: as FORM, or as FORM:WEIGHT of several."""
    from analysis.forms import named_forms

    asked = vars(options).get("form") or []
    names = [text.partition(":")[0] for text in ([asked] if isinstance(asked, str) else asked)]
    known = named_forms()
    return any("U" in known[name].variables for name in names if name in known)
