"""The manifest: what it states, what it notices, what a metric may be, what verifying costs."""

import json
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xxhash

from lab.core import manifest
from lab.core.errors import LabError
from lab.core.store import Skipped, Store
from tests.core.checkpoints import damage, edit_manifest, fill, tree


def test_the_manifest_states_what_the_documentation_says(tmp_path):
    fill(tmp_path, [3])
    content = json.loads((tmp_path / "3" / "manifest.json").read_text())
    assert content["schema"] == "lab.checkpoint/1"
    assert (content["step"], content["metrics"]) == (3, {"tokens": 3})
    values = np.arange(12, dtype="<f4") + np.float32(3)
    assert content["digests"]["w"] == {
        "shape": [3, 4],
        "dtype": "float32",
        "xxh3_128": xxhash.xxh3_128_hexdigest(values.tobytes()),
    }
    for name, file in content["files"].items():
        assert file["xxh3_128"] == xxhash.xxh3_128_hexdigest((tmp_path / "3" / name).read_bytes())
    on_disk = {p.relative_to(tmp_path / "3").as_posix() for p in (tmp_path / "3").rglob("*.*")}
    assert "state/manifest.ocdbt" in on_disk & set(content["files"])


def test_values_are_verified_where_the_file_is_too_large_to_be(tmp_path, monkeypatch):
    """Orbax itself returns these bits as weights."""
    monkeypatch.setattr(manifest, "WHOLE_FILE_BYTES", 1000)
    with Store(tmp_path, keep_last=2) as opened:
        for step in (1, 2):
            opened.save(step, {"w": jnp.arange(5000.0)}, metrics={})
    damage(tmp_path, 2)
    restored = Store(tmp_path, writable=False).restore({"w": jnp.empty(5000)})
    assert restored.step == 1
    assert restored.skipped == (Skipped(2, 'leaf "w": the digest of its values differs'),)


def test_a_changed_manifest_is_noticed(tmp_path):
    reader = Store(fill(tmp_path, [10, 20]), writable=False)
    edit_manifest(tmp_path / "20", metrics={"tokens": 21})
    assert reader.restore(tree(0)).skipped == (
        Skipped(20, "manifest.json: its own digest differs"),
    )
    edit_manifest(tmp_path / "20", seal=True, step=10)
    assert reader.restore(tree(0)).skipped == (Skipped(20, "manifest.json: is that of step 10"),)
    (tmp_path / "20" / "manifest.json").write_bytes(b"\xff{}")
    assert reader.restore(tree(0)).skipped == (Skipped(20, "manifest.json: not JSON"),)
    edit_manifest(tmp_path / "10", seal=True, schema="lab.checkpoint/2")
    with pytest.raises(LabError, match="another schema than lab.checkpoint/1"):
        reader.restore(tree(0))


def test_numpy_scalars_are_metrics_and_become_pythons(tmp_path):
    given = {
        "tokens": np.int64(2**40),
        "examples": np.uint8(200),
        "loss": np.float64(2.5),
        "small": np.float32(0.1),
        "half": np.float16(0.5),
        "split": np.str_("validation"),
        "bad": np.float32("nan"),
        "worse": np.float64("-inf"),
    }
    expected = {
        "tokens": 2**40,
        "examples": 200,
        "loss": 2.5,
        "small": 0.10000000149011612,  # the float32 next to 0.1
        "half": 0.5,
        "split": "validation",
        "bad": "nan",
        "worse": "-inf",
    }
    with Store(tmp_path, keep_last=1) as opened:
        opened.save(1, tree(1), metrics=given)
        opened.wait()
        found = opened.metrics(1)
    assert found == expected
    assert {name: type(value) for name, value in found.items()} == {
        name: type(value) for name, value in expected.items()
    }


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (None, "NoneType"),
        (1j, "complex"),
        (np.complex64(1), "complex64"),
        (np.datetime64("2026-11-24"), "datetime64"),
        (np.ones(()), "ndarray"),
        (np.ones(2), "ndarray"),
        ([1.0], "list"),
        (b"text", "bytes"),
    ],
)
def test_what_is_no_metric_is_refused_by_name_and_type(tmp_path, value, kind):
    said = f"^metrics.loss = .*: a number or a string is expected, {kind} given$"
    with Store(tmp_path, keep_last=1) as opened:
        with pytest.raises(LabError, match=said):
            opened.save(1, tree(1), metrics={"tokens": 1, "loss": value})
        assert opened.steps() == ()


def milliseconds(function):
    start = time.perf_counter()
    function()
    return (time.perf_counter() - start) * 1000


@pytest.mark.slow
@pytest.mark.parametrize("leaves", [[(64, 64)] * 146, [(1024, 1024)] * 86])
def test_verification_costs_at_most_a_tenth_of_the_restore(tmp_path, monkeypatch, leaves, capsys):
    """0.2 and 30 million parameters with two moments, float32: best of five."""
    rng = np.random.default_rng(0)
    state = [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in leaves]
    with Store(tmp_path, keep_last=1) as opened:
        opened.save(1, state, metrics={})
        opened.wait()
        blocked = milliseconds(lambda: opened.save(2, state, metrics={}))
        opened.wait()
        checked = min(
            milliseconds(lambda: jax.block_until_ready(opened.restore(state).tree))
            for _ in range(5)
        )
        found = manifest.read(tmp_path / "2")
        arrays = {path: np.asarray(leaf) for path, leaf in zip(found.digests, state, strict=True)}
        cost = min(
            milliseconds(
                lambda: (
                    manifest.read(tmp_path / "2"),
                    manifest.check_files(tmp_path / "2", found),
                    manifest.check_arrays(arrays, found),
                )
            )
            for _ in range(5)
        )
    with capsys.disabled():
        print(f"\nsave blocks {blocked:.1f} ms, restore {checked:.1f} ms, of it checks {cost:.1f}")
    assert cost <= 0.1 * checked
