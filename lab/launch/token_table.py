"""The table of token statistics: images and text, a row a source."""

from collections.abc import Iterator, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from lab.metrics.tokens import PUBLISHED_UNIGRAM_KL_NATS

WIDTH = 180  # where the output is no terminal
NONE = "-"
COLUMNS = (
    "alphabet",
    "tokens",
    "used",
    "perplexity",
    "KL unigram",
    "KL horizontal",
    "KL vertical",
    "H(right | left)",
    "MI right",
    "MI below",
)


def token_table(records: Sequence[dict[str, Any]]) -> Table:
    """A row a source, and below it its sub-codes."""
    published = ", ".join(f"{k} {v:.2f}" for k, v in PUBLISHED_UNIGRAM_KL_NATS.items())
    table = Table(
        title="Tokens: KL from uniform, entropies and mutual information, nats",
        caption=(
            "± half a 90 % interval over images or blocks, with the bias that may be left. "
            r"\[a, b]: not converged; the truth lies "
            "between a and b, but for noise. Perplexity: exp of the entropy. "
            f"KL unigram published by ELM (Table 1): {published}."
        ),
        caption_justify="left",
    )
    table.add_column("source", overflow="fold")
    for name in COLUMNS:
        table.add_column(name, justify="right", no_wrap=True)
    for record in records:
        table.add_row(*_row(record))
        for part in record["subcodes"]:
            table.add_row(*_row(part))
    return table


def _row(record: dict[str, Any]) -> Iterator[str]:
    unigram, bigram = record["unigram"], record.get("bigram", {})
    across, down = bigram.get("horizontal"), bigram.get("vertical")
    yield escape(record["name"])
    yield f"{record['alphabet']:,}"
    yield f"{record['tokens']:,}"
    yield f"{record['distinct_share']:.1%}"
    perplexity = record["perplexity"]
    least = f">= {record['perplexity_at_least']:,.1f}"
    yield least if perplexity is None else f"{perplexity:,.1f}"
    yield number(unigram["kl_from_uniform"])
    for pairs, name in (
        (across, "kl_from_uniform"),
        (down, "kl_from_uniform"),
        (across, "conditional_entropy"),
        (across, "mutual_information"),
        (down, "mutual_information"),
    ):
        yield NONE if pairs is None else number(pairs[name])


def number(quantity: dict[str, Any]) -> str:
    """A number with its interval, or the bounds where it is not converged."""
    low, high = quantity["low_nats"], quantity["high_nats"]
    if not quantity["converged"]:
        return escape(f"[{low:.2f}, {high:.2f}]")
    return f"{quantity['nats']:.3f} ± {(high - low) / 2:.3f}"
