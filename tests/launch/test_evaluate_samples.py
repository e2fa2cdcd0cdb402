"""Distances of samples, by the names under which they are told."""

from types import SimpleNamespace

from lab.launch.evaluate_samples import named


def test_only_inception_gives_its_distance_the_name_fid():
    metrics = ("fd", "fd_infinity", "kid", "recall")
    inception, other = SimpleNamespace(metric="fid"), SimpleNamespace(metric="fd_eurosat")
    assert [named(each, inception) for each in metrics] == ["fid", "fid_infinity", "kid", "recall"]
    assert [named(each, other) for each in metrics] == [
        *("fd_eurosat", "fd_infinity_eurosat"),
        *("kid_eurosat", "recall_eurosat"),
    ]
