"""What tokens look like: how far from uniform, and what neighbours share; images beside text.

python -m lab.launch.tokens codes/bae16/train --text corpus.txt --out reports/tokens
"""

import argparse
import json
import math
import os
import pathlib
import sys
import typing
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from lab.core.errors import ExitCode, LabError
from lab.launch.door import Parser, leave, parse
from lab.launch.memory import machine_bytes

if typing.TYPE_CHECKING:
    from lab.data.code_format import CodeSet
    from lab.metrics.grids import TokenGrids

EPILOG = """examples:
  python -m lab.launch.tokens codes/bae16/train codes/vqgan/train --out reports/tokens
  python -m lab.launch.tokens codes/bae16/train --split-bits 2 --text corpus.txt --pieces 4096 16384

A row a source: codes of images (folders of lab.launch.encode), and of each text its characters and
word pieces. All numbers are in nats. What too few tokens were drawn for is printed as bounds.
Exit codes: 0 finished, 2 bad input."""

FILE = "tokens.json"
SCHEMA = "lab.tokens/1"
CHUNK_IMAGES = 4096
MEMORY_SHARE = 0.5  # of this machine's, for the tokens of one folder


def parser() -> argparse.ArgumentParser:
    """The flags of this command."""
    made = Parser(
        prog="python -m lab.launch.tokens",
        description="Statistics of tokens: distance from uniform, neighbours, bits.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = made.add_argument
    add("codes", nargs="*", metavar="CODES_DIR", help="a finished folder of codes")
    add("--text", nargs="+", default=[], metavar="FILE", help="text files in UTF-8")
    add("--pieces", nargs="+", type=int, default=[4096], metavar="V", help="vocabularies (4096)")
    add("--split-bits", type=int, metavar="T", help="also each of T sub-codes of binary codes")
    add("--images", type=int, metavar="N", help="at most N images of each folder (all)")
    add(
        "--sampled-bit-entropy",
        action="append",
        default=[],
        metavar="CODES_DIR=NATS",
        help="entropy of the sampled bits a position, from the tokenizer's evaluation",
    )
    add("--tolerance", type=float, default=0.05, metavar="NATS", help="of convergence (0.05)")
    add("--seed", type=int, default=0, help="of the order of images and blocks (0)")
    add("--out", metavar="DIR", help=f"write DIR/{FILE}")
    add("--json", action="store_true", help="print the records as JSON")
    return made


def main(argv: Sequence[str]) -> ExitCode:
    """Measure every source, print the table, write the records."""
    flags, overrides = parse(parser(), argv)
    entropies = check_flags(flags, overrides)
    records = list(measure(flags, entropies))
    report = report_of(records, tolerance_nats=flags.tolerance)
    if flags.out:
        write_report(pathlib.Path(flags.out), report)
    if flags.json:
        print(json.dumps(report, indent=1, allow_nan=False))
        return ExitCode.DONE
    from rich.console import Console

    from lab.launch.token_table import WIDTH, token_table

    console = Console() if sys.stdout.isatty() else Console(width=WIDTH)
    console.print(token_table(records))
    if flags.out:
        path = pathlib.Path(flags.out) / FILE
        print(f"next: python experiments/02_tokens/figure.py {path}")
    return ExitCode.DONE


def check_flags(flags: argparse.Namespace, overrides: dict[str, str]) -> dict[str, float]:
    """Refuse what can be refused at once; the known entropies of sampled bits by folder."""
    if overrides:
        raise LabError(f"--config.{next(iter(overrides))}: this command has no config")
    if not flags.codes and not flags.text:
        raise LabError("nothing to measure: give a CODES_DIR or --text FILE")
    for value in [*flags.codes, *flags.text]:
        if [*flags.codes, *flags.text].count(value) > 1:
            raise LabError(f"{value}: given twice")
    for name, value, least in (
        ("--images", flags.images, 1),
        ("--split-bits", flags.split_bits, 1),
        ("--seed", flags.seed, 0),
    ):
        if value is not None and value < least:
            raise LabError(f"{name} {value}: allowed is >= {least}")
    for vocabulary in flags.pieces:
        if not 256 < vocabulary < 2**31 or flags.pieces.count(vocabulary) > 1:
            raise LabError(f"--pieces {vocabulary}: allowed is each once, above 256")
    if not 0 < flags.tolerance < float("inf"):
        raise LabError(f"--tolerance {flags.tolerance}: allowed is > 0")
    return dict(_entropy(text, flags.codes) for text in flags.sampled_bit_entropy)


def _entropy(text: str, codes: Sequence[str]) -> tuple[str, float]:
    name, _, number = text.rpartition("=")
    if name not in codes:
        raise LabError(f"--sampled-bit-entropy {text}: {name!r} is none of the CODES_DIR")
    try:
        nats = float(number)
    except ValueError:
        nats = -1.0
    if not 0 <= nats < float("inf"):
        raise LabError(f"--sampled-bit-entropy {text}: {number!r} is no number of nats >= 0")
    return name, nats


def measure(flags: argparse.Namespace, entropies: dict[str, float]) -> Iterator[dict[str, Any]]:
    """The record of each source, in the order of the command line."""
    from rich.console import Console
    from rich.markup import escape

    from lab.metrics.tokens import token_statistics

    console = Console(stderr=True)
    with console.status("reading") as status:

        def shown(name: str) -> Callable[[str], None]:
            return lambda step: status.update(escape(f"{name}: {step}"))

        for grids in sources(flags, shown):
            yield token_statistics(
                grids,
                split_bits=flags.split_bits,
                sampled_bit_entropy_nats=entropies.get(grids.name),
                tolerance_nats=flags.tolerance,
                progress=shown(grids.name),
            )


def sources(
    flags: argparse.Namespace, shown: Callable[[str], Callable[[str], None]]
) -> "Iterator[TokenGrids]":
    """Grids of every source; folders are all opened before the first is measured.

    `shown` gives, for the name of a source, what is told the step that it is at.
    """
    from lab.metrics.text import characters, pieces, read_text

    folders = [
        open_codes(
            directory,
            split_bits=flags.split_bits,
            most_images=flags.images,
            show=shown(directory),
        )
        for directory in flags.codes
    ]
    texts = [(pathlib.Path(path).stem, read_text(pathlib.Path(path))) for path in flags.text]
    for name, shards in zip(flags.codes, folders, strict=True):
        yield read_codes(
            shards, name=name, most_images=flags.images, seed=flags.seed, show=shown(name)
        )
    for name, text in texts:
        yield characters(text, name=name, seed=flags.seed)
        for vocabulary in flags.pieces:
            yield pieces(text, vocabulary=vocabulary, name=name, seed=flags.seed)


def open_codes(
    directory: str,
    *,
    split_bits: int | None,
    most_images: int | None,
    show: Callable[[str], None],
) -> Any:
    """A folder of codes that can be counted; LabError for continuous ones, or an uneven split."""
    from lab.core.codes import CodeKind, check_split
    from lab.data.code_manifest import read_manifest
    from lab.data.code_shards import CodeShards
    from lab.metrics.grids import check_countable

    what = read_manifest(pathlib.Path(directory)).what
    check_countable(what.alphabet, name=directory)
    if split_bits is not None and what.alphabet.kind is CodeKind.BITS:
        check_split(what.alphabet.size, split_bits)
    check_memory(what, most_images, name=directory)
    return CodeShards(
        directory, progress=lambda done, total: show(f"reading image {done} of {total}")
    )


def check_memory(what: "CodeSet", most_images: int | None, *, name: str) -> None:
    """Raise LabError where the tokens would not fit: all that are measured are held at once."""
    images = min(what.data.examples, most_images or what.data.examples)
    image_bytes = what.view_count * math.prod(what.grid) * token_bytes(what)
    memory = machine_bytes()
    fit = int(MEMORY_SHARE * memory) // image_bytes
    if images > fit:
        raise LabError(
            f"{name}: statistics of {images} images take about {images * image_bytes / 1e9:.0f} GB "
            f"of the {memory / 1e9:.0f} GB here; allowed: --images {fit} or fewer"
        )


def token_bytes(what: "CodeSet") -> int:
    """What a token takes: id, rank, sorts of it and its pairs, bits; 129 of 16 even bits."""
    return 80 + 3 * math.prod(what.view_shape[2:])


def read_codes(
    shards: Any, *, name: str, most_images: int | None, seed: int, show: Callable[[str], None]
) -> "TokenGrids":
    """All views of all images of a folder, or of some that the seed chooses."""
    import numpy as np

    from lab.metrics.grids import grids_of_codes

    chosen = np.sort(np.random.default_rng(seed).permutation(len(shards))[:most_images])
    codes, done = [], 0
    for part in np.array_split(chosen, -(-len(chosen) // CHUNK_IMAGES)):
        show(f"unpacking image {done} of {len(chosen)}")
        codes.append(np.stack([shards.rows(part, v).codes for v in range(shards.views)], axis=1))
        done += len(part)
    return grids_of_codes(np.concatenate(codes), shards.what.alphabet, name=name, seed=seed)


def report_of(records: Sequence[dict[str, Any]], *, tolerance_nats: float) -> dict[str, Any]:
    """What tokens.json holds."""
    from lab.metrics.tokens import PUBLISHED_UNIGRAM_KL_NATS

    return {
        "schema": SCHEMA,
        "tolerance_nats": tolerance_nats,
        "published_unigram_kl_nats": PUBLISHED_UNIGRAM_KL_NATS,
        "published_source": "ELM, arXiv 2410.16257, Table 1",
        "sources": list(records),
    }


def write_report(folder: pathlib.Path, report: dict[str, Any]) -> None:
    """Write tokens.json; a reader sees the old one or the new one."""
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f".{FILE}"
    draft.write_text(json.dumps(report, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(draft, folder / FILE)


if __name__ == "__main__":
    leave(main)
