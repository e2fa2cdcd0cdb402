"""Programs written by hand in the compiler's words, and their bytes of HBM.

Arrays are multiples of a KiB: f32[256] is one. S(1) is the vector memory of a TPU.
"""

from lab.core import hlo
from lab.core.hlo_bytes import hbm_bytes

KIB = 1024


def kib(*computations):
    """KiB of a program, by its computations; the last one is the entry."""
    *others, last = (text.strip("\n") for text in computations)
    text = "\n\n".join(["HloModule m", *others, f"ENTRY {last}"])
    return hbm_bytes(hlo.read(text)) / KIB


def entry(*lines):
    """The computation %main of some lines."""
    body = "\n".join(f"  {line}" for line in lines)
    return f"%main (x: f32[4,256]) -> f32[4,256] {{\n{body}\n}}"
