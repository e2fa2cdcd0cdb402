"""How stable a tokenizer's codes are: images -> codes -> images -> codes, and the share that stays.

    python -m tools.reencode runs/02_tokens/IDENTITY ... --data eurosat --images 512

Codes are rounded (no bit is drawn). The same images encoded twice must give the same codes; that a
reconstruction gives the codes that it was made from is a property of the tokenizer, and measured.
"""

import pathlib
import sys

import numpy as np

from lab.core.errors import LabError
from tools.tokenizer_runs import exit_code, parser_of


def measure(run: pathlib.Path, data: str, images: int) -> str:
    """One line of a tokenizer."""
    from lab.data.sources import open_source
    from lab.data.tokens import encode_rows
    from lab.tokenizers.trained import open_tokenizer

    trained = open_tokenizer(run)
    source = open_source(data, split="validation", examples=images)
    framed = encode_rows(source, trained.frames, range(len(source))).tokens
    frames = framed.reshape(-1, *trained.image_shape)
    codes = trained.encode_frames(frames)
    if not np.array_equal(codes, trained.encode_frames(frames)):
        raise LabError(f"{run}: the same images gave other codes the second time")
    again = trained.encode_frames(trained.decode_codes(codes))
    same = codes == again
    line = f"{trained.name}: {len(source)} images, {same.mean():.1%} of values the same"
    if codes.ndim == 4:
        line += f", {same.all(axis=-1).mean():.1%} of positions in all {codes.shape[-1]} of them"
    third = trained.encode_frames(trained.decode_codes(again))
    return line + f"; once more {(third == again).mean():.1%}"


def main(argv: list[str]) -> int:
    """Print a line a run."""
    parser = parser_of(__doc__)
    parser.add_argument("--data", required=True, help="a data set, like eurosat")
    parser.add_argument("--images", type=int, default=512, help="of the validation split (512)")
    flags = parser.parse_args(argv)

    def work() -> None:
        for run in flags.runs:
            print(measure(run, flags.data, flags.images))

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
