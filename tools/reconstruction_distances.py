"""How far reconstructions are from real images, by a feature extractor: a line a tokenizer.

    python -m tools.reconstruction_distances runs/02_tokens/IDENTITY ... --extractor EXTRACTOR_RUN

Frechet and kernel distance of validation images after a tokenizer (rounded codes, no bit drawn)
from the training images, and of the same images before it: the floor at this number. `--json FILE`
adds a row a tokenizer to a file of lines. As `lab.launch.evaluate --what reconstruction` measures
them for a generator's tokenizer; a tokenizer's run needs no generator here.
"""

import json
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from tools.tokenizer_runs import exit_code, parser_of

REFERENCE = "train"
LEVEL = 0.9


class Judge:
    """Distances from the images of a training split, whose features are read once."""

    def __init__(self, extractor: Any, data: str, images: int) -> None:
        from lab.data.sources import open_source
        from lab.launch.evaluate_features import Readers
        from lab.launch.evaluate_task import Tools

        tools = Tools(
            batch=64, show=lambda *_: None, stops=lambda: False, warn=lambda line: print(line)
        )
        self.extractor, self.readers = extractor, Readers(tools)
        self.real = open_source(data, split=REFERENCE)
        self.held_out = open_source(data, split="validation", examples=images)
        self.kept: dict[str, tuple[Any, dict[str, float]]] = {}  # by how images are framed

    def __call__(self, run: pathlib.Path) -> dict[str, Any]:
        """The row of a tokenizer."""
        from lab.tokenizers.trained import open_tokenizer

        trained = open_tokenizer(run)
        real, floor = self._of_real(trained.frames, run.absolute().parent.parent)
        back = (
            trained.decode_codes(trained.encode_frames(images))
            for images in self._validation(trained.frames)
        )
        return {
            "name": trained.name,
            "tokenizer": trained.identity,
            "extractor": self.extractor.identity,
            "data": self.held_out.info.name,
            "images": len(self.held_out),
            **self._distances(back, real),
            **{f"{name}_real": value for name, value in floor.items()},
        }

    def _of_real(self, frames: Any, workdir: pathlib.Path) -> tuple[Any, dict[str, float]]:
        from lab.launch.evaluate_data import ImageSet
        from lab.metrics.distances import Reference

        if frames.identity not in self.kept:
            found = self.readers.of_set(self.extractor, ImageSet(self.real, frames), workdir)
            reference = Reference(found.moments, found.features_NF, found.log_probabilities_NK)
            floor = self._distances(self._validation(frames), reference)
            self.kept[frames.identity] = reference, floor
        return self.kept[frames.identity]

    def _validation(self, frames: Any) -> Iterator[np.ndarray]:
        from lab.launch.evaluate_data import ImageSet

        return ImageSet(self.held_out, frames).batches(64)

    def _distances(self, images: Iterator[np.ndarray], real: Any) -> dict[str, float]:
        from lab.metrics.distances import judge

        total = len(self.held_out)
        found = self.readers.read(self.extractor, images, total=total)
        values = judge(
            found.features_NF,
            found.log_probabilities_NK,
            real,
            level=LEVEL,
            seed=0,
            counts=[total],
        )
        wanted = [value for value in values if value.metric in ("fd", "kid")]
        return {
            f"{v.metric}{end}": number
            for v in wanted
            for end, number in (("", v.value), ("_low", v.low), ("_high", v.high))
        }


def main(argv: list[str]) -> int:
    """Print a line a run."""
    parser = parser_of(__doc__)
    parser.add_argument("--extractor", required=True, help="run directory of a classifier")
    parser.add_argument("--data", default="eurosat", help="a data set (eurosat)")
    parser.add_argument("--images", type=int, default=1024, help="of the validation split (1024)")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="add a line a run")
    flags = parser.parse_args(argv)
    from lab.extractors.trained import open_extractor

    def work() -> None:
        judge = Judge(open_extractor(flags.extractor), flags.data, flags.images)
        for run in flags.runs:
            row = judge(run)
            print(
                f"{row['name']}: FD {row['fd']:.2f} [{row['fd_low']:.2f}, {row['fd_high']:.2f}], "
                f"KID {row['kid']:.4f} [{row['kid_low']:.4f}, {row['kid_high']:.4f}] of "
                f"{row['images']} images; before the tokenizer FD {row['fd_real']:.2f}"
            )
            if flags.json:
                with flags.json.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
