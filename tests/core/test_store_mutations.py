"""Damaged checkpoints: the right values, a fall-back by name or a clear stop; never silence."""

import pytest

from tools.mutate_checkpoints import Mutation, Outcome, run


@pytest.mark.parametrize("as_large", [False, True])
@pytest.mark.parametrize(
    ("mutations", "seed"), [(100, 1), pytest.param(1000, 0, marks=pytest.mark.slow)]
)
def test_no_mutation_restores_wrong_values(tmp_path, mutations, seed, as_large):
    table = run(mutations, seed=seed, directory=tmp_path, as_large=as_large)
    assert table.total() == mutations
    assert not [mutation for mutation in Mutation if table[mutation, Outcome.WRONG]]
    # The test would prove nothing if the mutations touched nothing that is read.
    for mutation in Mutation:
        assert table[mutation, Outcome.FELL_BACK] + table[mutation, Outcome.STOPPED] > 0


def test_a_restore_without_verification_is_found_wrong(tmp_path, monkeypatch):
    """The harness sees silent damage where there is some: the digests are what prevents it."""
    monkeypatch.setattr("lab.core.manifest.check_arrays", lambda arrays, manifest: None)
    table = run(150, seed=2, directory=tmp_path, as_large=True)
    assert table[Mutation.FLIP, Outcome.WRONG] > 0
