"""Inception-v3 of FID in float64 NumPy, NCHW, normalisations not folded: written from the paper's
figures and the published port's list of layers, apart from lab/extractors/inception.py."""

import numpy as np

EPSILON = 1e-3


def pad(x, rows, columns, value=0.0):
    around = ((0, 0), (0, 0), (rows, rows), (columns, columns))
    return np.pad(x, around, constant_values=value)


def windows(x, kernel, stride):
    """(N, C, H', W', kernel rows, kernel columns)."""
    seen = np.lib.stride_tricks.sliding_window_view(x, kernel, axis=(2, 3))
    return seen[:, :, ::stride, ::stride]


def convolve(x, weight_oihw, *, stride=1, rows=0, columns=0):
    seen = windows(pad(x, rows, columns), weight_oihw.shape[2:], stride)
    return np.einsum("nchwij,ocij->nohw", seen, weight_oihw, optimize=True)


def max_pool(x, *, stride, around=0):
    return windows(pad(x, around, around, -np.inf), (3, 3), stride).max(axis=(4, 5))


def mean_pool(x):
    """Zeros around an image do not count: NaN stands for them."""
    return np.nanmean(windows(pad(x, 1, 1, np.nan), (3, 3), 1), axis=(4, 5))


class Network:
    """Called with a state of the port's names."""

    def __init__(self, state):
        self.state = {name: value.astype(np.float64) for name, value in state.items()}

    def layer(self, x, name, *, stride=1, rows=0, columns=0):
        part = lambda key: self.state[f"{name}.{key}"]  # noqa: E731
        x = convolve(x, part("conv.weight"), stride=stride, rows=rows, columns=columns)
        shape = (1, -1, 1, 1)
        mean, variance = (
            part("bn.running_mean").reshape(shape),
            part("bn.running_var").reshape(shape),
        )
        x = (x - mean) / np.sqrt(variance + EPSILON)
        return np.maximum(x * part("bn.weight").reshape(shape) + part("bn.bias").reshape(shape), 0)

    def figure_5(self, x, name):
        """Two threes in one branch, a five in another."""
        of = lambda layer, x, **k: self.layer(x, f"{name}.{layer}", **k)  # noqa: E731
        five = of("branch5x5_2", of("branch5x5_1", x), rows=2, columns=2)
        three = of("branch3x3dbl_2", of("branch3x3dbl_1", x), rows=1, columns=1)
        three = of("branch3x3dbl_3", three, rows=1, columns=1)
        return np.concatenate(
            [of("branch1x1", x), five, three, of("branch_pool", mean_pool(x))], axis=1
        )

    def smaller_35(self, x, name):
        of = lambda layer, x, **k: self.layer(x, f"{name}.{layer}", **k)  # noqa: E731
        three = of("branch3x3dbl_2", of("branch3x3dbl_1", x), rows=1, columns=1)
        parts = [of("branch3x3", x, stride=2), of("branch3x3dbl_3", three, stride=2)]
        return np.concatenate([*parts, max_pool(x, stride=2)], axis=1)

    def figure_6(self, x, name):
        """Sevens as a row and a column."""
        of = lambda layer, x, **k: self.layer(x, f"{name}.{layer}", **k)  # noqa: E731
        row, column = {"columns": 3}, {"rows": 3}
        once = of("branch7x7_2", of("branch7x7_1", x), **row)
        once = of("branch7x7_3", once, **column)
        twice = of("branch7x7dbl_2", of("branch7x7dbl_1", x), **column)
        twice = of("branch7x7dbl_3", twice, **row)
        twice = of("branch7x7dbl_4", twice, **column)
        twice = of("branch7x7dbl_5", twice, **row)
        return np.concatenate(
            [of("branch1x1", x), once, twice, of("branch_pool", mean_pool(x))], axis=1
        )

    def smaller_17(self, x, name):
        of = lambda layer, x, **k: self.layer(x, f"{name}.{layer}", **k)  # noqa: E731
        three = of("branch3x3_2", of("branch3x3_1", x), stride=2)
        seven = of("branch7x7x3_2", of("branch7x7x3_1", x), columns=3)
        seven = of("branch7x7x3_4", of("branch7x7x3_3", seven, rows=3), stride=2)
        return np.concatenate([three, seven, max_pool(x, stride=2)], axis=1)

    def figure_7(self, x, name, pool):
        """Threes spread into a row and a column."""
        of = lambda layer, x, **k: self.layer(x, f"{name}.{layer}", **k)  # noqa: E731
        three = of("branch3x3_1", x)
        twice = of("branch3x3dbl_2", of("branch3x3dbl_1", x), rows=1, columns=1)
        parts = [
            of("branch1x1", x),
            of("branch3x3_2a", three, columns=1),
            of("branch3x3_2b", three, rows=1),
            of("branch3x3dbl_3a", twice, columns=1),
            of("branch3x3dbl_3b", twice, rows=1),
            of("branch_pool", pool(x)),
        ]
        return np.concatenate(parts, axis=1)

    def __call__(self, x):
        """Features (N, F) of images (N, 3, H, W)."""
        x = self.layer(x, "Conv2d_1a_3x3", stride=2)
        x = self.layer(x, "Conv2d_2a_3x3")
        x = self.layer(x, "Conv2d_2b_3x3", rows=1, columns=1)
        x = max_pool(x, stride=2)
        x = self.layer(self.layer(x, "Conv2d_3b_1x1"), "Conv2d_4a_3x3")
        x = max_pool(x, stride=2)
        for name in ("Mixed_5b", "Mixed_5c", "Mixed_5d"):
            x = self.figure_5(x, name)
        x = self.smaller_35(x, "Mixed_6a")
        for name in ("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"):
            x = self.figure_6(x, name)
        x = self.smaller_17(x, "Mixed_7a")
        x = self.figure_7(x, "Mixed_7b", mean_pool)
        x = self.figure_7(x, "Mixed_7c", lambda y: max_pool(y, stride=1, around=1))
        return x.mean(axis=(2, 3))
