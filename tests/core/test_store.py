"""The store: bit-exact, asynchronous, atomic, and clear when something is wrong."""

import errno
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from lab.core import manifest, store
from lab.core.errors import LabError
from lab.core.store import Store
from tests.core import checkpoint_writer
from tests.core.checkpoints import assert_same, fill, meshes, tree

ROOT = Path(__file__).resolve().parents[2]


# What is saved comes back.


class Block(nnx.Module):
    def __init__(self, key):
        self.kernel = nnx.Param(jax.random.normal(key, (8, 16)))
        self.scale = nnx.Param(jnp.ones(16, jnp.bfloat16))


def test_modules_and_optimiser_states_come_back_bit_for_bit(tmp_path):
    params = Block(jax.random.key(0))
    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3))
    state = {
        "params": params,
        "opt": optimiser.init(params),
        "ema": (jax.tree.map(lambda leaf: leaf * 0.5, params), jnp.zeros((0, 3))),
        "step": jnp.int32(7),
        "host": np.arange(3.0),
    }
    with Store(tmp_path, keep_last=1) as opened:
        opened.save(7, state, metrics={})
        like = jax.eval_shape(lambda: {k: v for k, v in state.items() if k != "host"})
        restored = opened.restore(like | {"host": np.empty(3)})
    assert_same(restored.tree, state)
    assert type(restored.tree["params"]) is Block
    assert type(restored.tree["host"]) is np.ndarray and restored.tree["host"].dtype == np.float64


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "int16", "float32", "int32", "uint32"])
def test_every_bit_pattern_comes_back(tmp_path, dtype):
    """All of 16 bits, and random ones of 32: NaN payloads, subnormals, -0.0."""
    rng = np.random.default_rng(0)
    wide = rng.integers(0, 2**32, 1000, dtype=np.uint32)
    kind = np.dtype(jnp.dtype(dtype))
    values = (np.arange(2**16, dtype=np.uint16) if kind.itemsize == 2 else wide).view(kind)
    state = {"host": values, "device": jax.device_put(values), "scalar": values[-1:].reshape(())}
    with Store(tmp_path, keep_last=1) as opened:
        opened.save(1, state, metrics={})
        assert_same(opened.restore(state).tree, state)


@pytest.mark.parametrize("saved", range(3))
@pytest.mark.parametrize("wanted", range(3))
def test_any_layout_restores_under_any_other(tmp_path, saved, wanted):
    values = jax.random.normal(jax.random.key(1), (8, 16))
    source, target = meshes()[saved], meshes()[wanted]
    with Store(tmp_path, keep_last=1) as opened:
        opened.save(1, {"w": jax.device_put(values, source)}, metrics={})
        like = {"w": jax.ShapeDtypeStruct((8, 16), jnp.float32, sharding=target)}
        restored = opened.restore(like).tree["w"]
    assert restored.sharding == target
    assert np.asarray(restored).tobytes() == np.asarray(values).tobytes()


def test_buffers_may_be_donated_and_overwritten_at_once(tmp_path):
    step = jax.jit(lambda w: w * -1.0, donate_argnums=0)
    device, host = jnp.arange(200_000.0), np.arange(1000.0)
    expected = {"device": np.arange(200_000.0, dtype=np.float32), "host": np.arange(1000.0)}
    with Store(tmp_path, keep_last=1) as opened:
        opened.save(1, {"device": device, "host": host}, metrics={})
        step(device).block_until_ready()
        host[:] = -1.0
        assert device.is_deleted()  # the donation was a real one
        restored = opened.restore(expected)
        assert_same(restored.tree, expected)
        first = opened.restore({"device": jnp.empty(200_000), "host": host}).tree["device"]
        step(first).block_until_ready()
        assert_same(opened.restore(expected).tree, expected)


@pytest.mark.parametrize("layout", range(3))
def test_restored_buffers_may_be_donated_though_they_lie_in_host_memory(
    tmp_path, monkeypatch, layout
):
    """An array aligned to 64 bytes is what the CPU backend takes over without a copy."""
    held, real = {}, store.read_arrays

    def aligned(folder, found):
        for path, array in real(folder, found).items():
            room = np.empty(array.nbytes + 64, np.uint8)
            start = -room.ctypes.data % 64
            held[path] = room[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
            held[path][...] = array
        return held

    monkeypatch.setattr(store, "read_arrays", aligned)
    values = np.arange(4096, dtype=np.float32).reshape(64, 64)
    like = {"w": jax.ShapeDtypeStruct(values.shape, values.dtype, sharding=meshes()[layout])}
    with Store(tmp_path, keep_last=1) as opened:
        opened.save(1, {"w": values}, metrics={})
        restored = opened.restore(like).tree["w"]
    updated = jax.jit(lambda w: w * -1.0 - 1.0, donate_argnums=0)(restored)
    assert np.array_equal(updated, -values - 1.0)
    assert restored.is_deleted() and np.array_equal(held["w"], values)


def test_metrics_lie_beside_the_arrays(tmp_path):
    with Store(tmp_path, keep_last=1) as opened:
        metrics = {"loss": 2.5, "tokens": 3, "split": "validation", "bad": float("nan")}
        opened.save(4, tree(4), metrics=metrics | {"worse": -np.float64("inf")})
        opened.wait()
        expected = metrics | {"bad": "nan", "worse": "-inf"}
        assert opened.metrics(4) == expected
        assert opened.restore(tree(0)).metrics == expected
        with pytest.raises(LabError, match="metrics.loss = None: a number or a string"):
            opened.save(5, tree(5), metrics={"loss": None})
        with pytest.raises(LabError, match="5: manifest.json is missing"):
            opened.metrics(5)


# Asynchronous, and honest about failures.


def test_save_returns_before_the_writing_is_done(tmp_path, monkeypatch):
    go, real = threading.Event(), store.write_arrays

    def slow(folder, arrays):
        assert go.wait(30)
        real(folder, arrays)

    monkeypatch.setattr(store, "write_arrays", slow)
    with Store(tmp_path, keep_last=1) as opened:
        opened.save(1, tree(1), metrics={})
        assert opened.steps() == ()
        go.set()
        opened.save(2, tree(2), metrics={})  # joins the first
        assert 1 in opened.steps()
        opened.wait()
        assert opened.steps() == (2,)


def test_a_save_that_fails_says_so_at_the_next_call_and_leaves_the_rest(tmp_path, monkeypatch):
    def full(folder, content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with Store(fill(tmp_path, [1], keep_last=1), keep_last=1) as opened:
        with monkeypatch.context() as patch:
            patch.setattr(manifest, "write", full)
            opened.save(2, tree(2), metrics={})
            with pytest.raises(LabError) as error:
                opened.save(3, tree(3), metrics={})
        assert str(error.value) == (
            f"{tmp_path}/2: not saved: No space left on device; saved steps: 1"
        )
        assert os.listdir(tmp_path) == ["1"]
        opened.save(3, tree(3), metrics={})  # said once; the next one is saved
        opened.wait()
        assert opened.steps() == (3,)


def test_a_save_whose_tidying_fails_too_is_still_one_line(tmp_path, monkeypatch):
    """The first reason is said first and chained; a step half replaced is brought back later."""

    def full(folder, content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def refuse(path, target):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    with Store(fill(tmp_path, [2]), keep_last=2) as opened:
        (tmp_path / "2").rename(tmp_path / ".replaced-2")
        with monkeypatch.context() as patch:
            patch.setattr(manifest, "write", full)
            patch.setattr(Path, "rename", refuse)
            opened.save(2, tree(2), metrics={})
            with pytest.raises(LabError) as error:
                opened.wait()
            with pytest.raises(LabError, match="/.replaced-2: cannot be brought back: Permission"):
                Store(tmp_path)
        assert str(error.value) == (
            f"{tmp_path}/2: not saved: No space left on device; then "
            f"{tmp_path}/.replaced-2: cannot be brought back: Permission denied"
        )
        assert error.value.__cause__.errno == errno.ENOSPC
        opened.save(3, tree(3), metrics={})
    with Store(tmp_path, keep_last=2) as opened:
        assert opened.steps() == (2, 3)
        assert_same(opened.restore(tree(0), step=2).tree, tree(2))
    assert sorted(os.listdir(tmp_path)) == ["2", "3"]


FULL_DISK = """
import resource, signal, sys, pathlib
import jax.numpy as jnp
from lab.core.errors import LabError
from lab.core.store import Store
with Store(pathlib.Path(sys.argv[1]), keep_last=1) as store:
    store.save(1, {"w": jnp.ones(1000)}, metrics={})
    store.wait()
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
    store.save(2, {"w": jnp.arange(100_000.0)}, metrics={})
    try:
        store.wait()
    except LabError as error:
        print(error)
    store.save(3, {"w": jnp.ones(1000)}, metrics={})
"""


def test_a_write_that_the_system_refuses_is_one_line(tmp_path):
    """The same limit that a full disk is to Orbax and TensorStore: a file cannot grow."""
    command = [sys.executable, "-W", "error", "-c", FULL_DISK, str(tmp_path)]
    child = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert child.stdout == f"{tmp_path}/2: not saved: File too large; saved steps: 1\n"
    assert child.stderr == ""
    assert os.listdir(tmp_path) == ["3"]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"w": 1.0}, 'leaf "w" is a float: only arrays'),
        ({"k": jax.eval_shape(lambda: jax.random.key(0))}, 'leaf "k" is of key<fry>: only plain'),
        ({"a/b": np.ones(1), "a": {"b": np.ones(1)}}, 'leaf "a/b": two leaves'),
        ({"a": np.ones((0, 3))}, "step 1: the tree holds no values"),
        ({"w": np.ones(2, ">f4")}, 'leaf "w" is of >f4: only native byte order'),
    ],
)
def test_what_cannot_be_saved_is_refused_by_name(tmp_path, bad, message):
    with Store(tmp_path, keep_last=1) as opened:
        with pytest.raises(LabError, match=message):
            opened.save(1, bad, metrics={})
    assert os.listdir(tmp_path) == []


def test_a_step_below_zero_is_refused(tmp_path):
    """Its folder would be no step to any listing."""
    with Store(tmp_path, keep_last=1) as opened:
        with pytest.raises(LabError, match="step -1: 0 or more is expected"):
            opened.save(-1, tree(0), metrics={})
    assert os.listdir(tmp_path) == []


def test_an_array_of_several_processes_is_refused_by_name(tmp_path):
    class Part:
        shape, dtype, is_fully_addressable = (4,), np.dtype("float32"), False

    with Store(tmp_path, keep_last=1) as opened:
        with pytest.raises(LabError, match='leaf "w" is spread over several processes'):
            opened.save(1, {"w": Part()}, metrics={})


# The keep policy.


def test_the_last_and_every_thirtieth_are_kept(tmp_path):
    fill(tmp_path, range(0, 80, 10), keep_last=2, keep_every=30)
    assert Store(tmp_path, writable=False).steps() == (0, 30, 60, 70)
    fill(tmp_path, [80], keep_last=1)
    assert Store(tmp_path, writable=False).steps() == (80,)
    with pytest.raises(LabError, match="keep_last = 0"):
        Store(tmp_path, keep_last=0)


def test_nothing_is_deleted_before_the_newer_step_is_committed(tmp_path, monkeypatch):
    seen, real = [], Store._commit

    def watched(self, temporary, step):
        seen.append(self.steps())
        real(self, temporary, step)

    monkeypatch.setattr(Store, "_commit", watched)
    fill(tmp_path, [1, 2, 3], keep_last=1)
    assert seen == [(), (1,), (2,)]


# Killed processes, directories that refuse.


def test_opening_removes_what_a_kill_left_and_nothing_else(tmp_path):
    fill(tmp_path, [10, 20])
    (tmp_path / "10").rename(tmp_path / ".replaced-10")  # killed between the two renames
    for name in (".saving-30", ".saving-30.orbax-checkpoint-tmp/state", ".deleting-5/state"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / ".replaced-20").mkdir()
    (tmp_path / "notes").mkdir()
    Store(tmp_path, writable=False)
    assert len(os.listdir(tmp_path)) == 7
    with Store(tmp_path, keep_last=5) as opened:
        assert opened.steps() == (10, 20)
        assert_same(opened.restore(tree(0), step=10).tree, tree(10))
    assert sorted(os.listdir(tmp_path)) == ["10", "20", "notes"]


def kill_while_saving(directory, rng):
    """Start a writer, kill it at a random moment, return the last step whose save returned."""
    command = [sys.executable, "-W", "error", "-m", "tests.core.checkpoint_writer", str(directory)]
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    first = child.stdout.readline()
    time.sleep(rng.uniform(0, 0.4))
    child.send_signal(signal.SIGKILL)
    lines = [first, *child.stdout.read().splitlines()]
    child.stdout.close()
    assert child.wait() == -signal.SIGKILL
    return int([line for line in lines if line.strip()][-1])


@pytest.mark.parametrize("trials", [5, pytest.param(50, marks=pytest.mark.slow)])
def test_a_kill_at_any_moment_loses_at_most_one_save(tmp_path, trials):
    rng = random.Random(trials)
    for _ in range(trials):
        returned = kill_while_saving(tmp_path, rng)
        with Store(tmp_path, keep_last=2, keep_every=50) as opened:
            restored = opened.restore(checkpoint_writer.tree(0))
            assert (restored.step if restored else 0) >= returned - 1
            if restored:
                assert restored.skipped == ()
                assert_same(restored.tree, checkpoint_writer.tree(restored.step))
            assert sorted(map(int, os.listdir(tmp_path))) == list(opened.steps())
            for step in opened.steps():
                assert opened.restore(checkpoint_writer.tree(0), step=step).step == step


@pytest.fixture
def nobody():
    """An ordinary user, to whom permissions apply."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    yield
    os.seteuid(0)


def test_a_directory_that_cannot_be_written_is_named(tmp_path, nobody):
    with pytest.raises(LabError, match="/proc/checkpoints: cannot be made: "):
        Store(Path("/proc/checkpoints"), keep_last=1)
    with pytest.raises(LabError, match="/usr: cannot be written to"):
        Store(Path("/usr"), keep_last=1)


def test_a_file_in_the_place_of_the_directory_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(LabError, match="file: cannot be made: File exists"):
        Store(tmp_path / "file", keep_last=1)


def test_a_reader_saves_nothing(tmp_path):
    with pytest.raises(LabError, match="opened for reading"):
        Store(fill(tmp_path, [1]), writable=False).save(2, tree(2), metrics={})
    assert os.listdir(tmp_path) == ["1"]


def test_a_failed_save_removes_nothing_of_another_step(tmp_path, monkeypatch):
    """A process that took the run over may be writing it."""

    def full(folder, content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with Store(fill(tmp_path, [1]), keep_last=2) as opened:
        theirs = [tmp_path / ".saving-3", tmp_path / ".saving-22.orbax-checkpoint-tmp"]
        for path in theirs:
            path.mkdir()
        monkeypatch.setattr(manifest, "write", full)
        opened.save(2, tree(2), metrics={})
        with pytest.raises(LabError, match="2: not saved: No space left on device"):
            opened.wait()
        assert sorted(tmp_path.glob(".saving-*")) == sorted(theirs)
