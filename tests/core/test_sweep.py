"""The algebra of sweeps, against lists written by hand."""

import pytest

from lab.core.errors import LabError
from lab.core.sweep import axis, chain, product, zipped

A, B = axis("a", [1, 2]), axis("b", ["x", "y"])


def test_product_zipped_chain():
    assert product(A, B) == [
        {"a": 1, "b": "x"},
        {"a": 1, "b": "y"},
        {"a": 2, "b": "x"},
        {"a": 2, "b": "y"},
    ]
    assert zipped(A, B) == [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]
    assert chain(A, B) == [{"a": 1}, {"a": 2}, {"b": "x"}, {"b": "y"}]
    assert product() == [{}]


def test_refusals():
    with pytest.raises(LabError, match="differ in length"):
        zipped(A, axis("b", [1]))
    with pytest.raises(LabError, match='sets "a" twice'):
        product(A, A)
