"""Text as tokens: characters and word pieces, so that it can stand beside images."""

from __future__ import annotations

import pathlib

import numpy as np

from lab.core.errors import LabError
from lab.metrics.grids import TokenGrids, grids_of_sequence

BLOCK = 256  # tokens: the unit that is taken as independent
FEWEST_PIECES = 256  # byte-level pieces begin with every byte


def read_text(path: pathlib.Path) -> str:
    """A text file in UTF-8, without a byte order mark."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise LabError(f"{path}: not UTF-8: byte {error.start}: {error.reason}") from None
    if not text:
        raise LabError(f"{path}: empty")
    return text


def characters(text: str, *, name: str, seed: int) -> TokenGrids:
    """Unicode characters; the alphabet is those that occur in this text."""
    known, ids = np.unique(np.frombuffer(text.encode("utf-32-le"), "<u4"), return_inverse=True)
    return grids_of_sequence(
        ids,
        name=f"{name}, characters",
        unit="characters",
        block=BLOCK,
        alphabet=len(known),
        seed=seed,
        note="alphabet: the characters that occur in the text",
    )


def pieces(text: str, *, vocabulary: int, name: str, seed: int) -> TokenGrids:
    """Word pieces of a byte-level BPE that is trained on this very text.

    Raises LabError where the text has too few pairs to merge for the vocabulary.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    if vocabulary <= FEWEST_PIECES:
        raise LabError(f"pieces {vocabulary}: allowed is more than {FEWEST_PIECES}")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([text], trainer)
    if tokenizer.get_vocab_size() < vocabulary:
        raise LabError(
            f"{name}: only {tokenizer.get_vocab_size()} pieces can be made of this text, "
            f"{vocabulary} were asked for"
        )
    return grids_of_sequence(
        np.array(tokenizer.encode(text).ids),
        name=f"{name}, {vocabulary} pieces",
        unit="pieces",
        block=BLOCK,
        alphabet=vocabulary,
        seed=seed,
        note="byte-level BPE trained on the text itself",
    )
