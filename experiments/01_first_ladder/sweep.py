"""The first ladder: seven sizes at one token budget, and the small ones at less.

    python -m lab.launch.sweep experiments/01_first_ladder/sweep.py --workers 2

The argument names the data: dead_leaves (default), fashion_mnist or eurosat.
"""

from lab.core.sweep import Override, axis, chain, product

SIZES = ["s1", "s2", "s3", "s4", "s5", "s6"]
FORECAST_SIZE = "s7"
