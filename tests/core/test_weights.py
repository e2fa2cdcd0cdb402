"""Weights of others: what is read is what was written, and every misfit is named."""

import hashlib
import json
import struct

import jax
import ml_dtypes
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file

from lab.core.errors import LabError
from lab.core.weights import NamedWeight, Turn, assign, read_weights


def by_hand(path, arrays):
    """A safetensors file from its published description: header length, JSON header, bytes."""
    codes = {"float32": "F32", "bfloat16": "BF16", "int64": "I64", "float16": "F16"}
    header, data = {}, b""
    for name, array in arrays.items():
        start, data = len(data), data + array.tobytes()
        header[name] = {
            "dtype": codes[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [start, len(data)],
        }
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


@pytest.fixture
def theirs():
    rng = np.random.default_rng(0)
    return {
        "conv.weight": rng.normal(size=(5, 2, 3, 4)).astype(np.float32),
        "conv.bias": rng.normal(size=(5,)).astype(np.float32),
        "linear.weight": rng.normal(size=(7, 5)).astype(np.float32),
        "pointwise.weight": rng.normal(size=(6, 5, 1, 1)).astype(np.float32),
    }


NAMES = [
    NamedWeight("conv/bias", "conv.bias"),
    NamedWeight("conv/weight", "conv.weight", Turn.CONVOLUTION),
    NamedWeight("linear/0", "linear.weight", Turn.LINEAR),
    NamedWeight("linear/1", "pointwise.weight", Turn.POINTWISE_TO_LINEAR),
]


def abstract(dtype=np.float32):
    def leaf(*shape):
        return jax.ShapeDtypeStruct(shape, dtype)

    return {
        "linear": [leaf(5, 7), leaf(5, 6)],
        "conv": {"weight": leaf(3, 4, 2, 5), "bias": leaf(5)},
    }


def test_reads_the_published_format(tmp_path):
    """bfloat16 and integers among them, by a writer of our own."""
    arrays = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "half": (np.arange(4) / 3).astype(ml_dtypes.bfloat16),
        "scalar": np.array(3.5, np.float16),
        "none": np.zeros((0, 4), np.float32),
        "n": np.array([2**40, -1]),
    }
    path = by_hand(tmp_path / "w.safetensors", arrays)
    file = read_weights(path)
    assert file.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert set(file.arrays) == set(arrays)
    for name, want in arrays.items():
        assert file.arrays[name].dtype == want.dtype
        assert file.arrays[name].shape == want.shape
        np.testing.assert_array_equal(file.arrays[name], want)


def test_assigns_turned(tmp_path, theirs):
    save_file(theirs, tmp_path / "w.safetensors")
    got = assign(abstract(), read_weights(tmp_path / "w.safetensors"), NAMES)
    assert set(got) == {"conv", "linear"}
    conv = theirs["conv.weight"]
    for o, i, h, w in np.ndindex(conv.shape):
        assert got["conv"]["weight"][h, w, i, o] == conv[o, i, h, w]
    np.testing.assert_array_equal(got["conv"]["bias"], theirs["conv.bias"])
    for o, i in np.ndindex(7, 5):
        assert got["linear"][0][i, o] == theirs["linear.weight"][o, i]
    for o, i in np.ndindex(6, 5):
        assert got["linear"][1][i, o] == theirs["pointwise.weight"][o, i, 0, 0]


def test_linear_to_pointwise(tmp_path, theirs):
    save_file({"w": theirs["linear.weight"]}, tmp_path / "w.safetensors")
    tree = {"w": jax.ShapeDtypeStruct((1, 1, 5, 7), np.float32)}
    names = [NamedWeight("w", "w", Turn.LINEAR_TO_POINTWISE)]
    got = assign(tree, read_weights(tmp_path / "w.safetensors"), names)
    np.testing.assert_array_equal(got["w"][0, 0, 2], theirs["linear.weight"][:, 2])


def test_takes_the_dtype_of_the_leaf(tmp_path, theirs):
    save_file(theirs, tmp_path / "w.safetensors")
    got = assign(abstract(ml_dtypes.bfloat16), read_weights(tmp_path / "w.safetensors"), NAMES)
    want = theirs["conv.bias"].astype(ml_dtypes.bfloat16)
    assert got["conv"]["bias"].dtype == want.dtype
    np.testing.assert_array_equal(got["conv"]["bias"], want)


class Layer(nnx.Module):
    def __init__(self):
        self.weight = nnx.Param(np.zeros((5, 7), np.float32), axes=("a", "b"))


@pytest.mark.parametrize("ours", ["weight", "weight/value"])
def test_fills_parameters_of_flax(tmp_path, theirs, ours):
    save_file({"w": theirs["linear.weight"]}, tmp_path / "w.safetensors")
    names = [NamedWeight(ours, "w", Turn.LINEAR)]
    layer = assign(jax.eval_shape(Layer), read_weights(tmp_path / "w.safetensors"), names)
    assert layer.weight.get_metadata("axes") == ("a", "b")
    np.testing.assert_array_equal(layer.weight[...], theirs["linear.weight"].T)


def message_of(tmp_path, arrays, names=NAMES, tree=None, **kwargs):
    path = tmp_path / "w.safetensors"
    save_file(arrays, path)
    with pytest.raises(LabError) as caught:
        assign(tree or abstract(), read_weights(path), names, **kwargs)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    return message


def test_all_faults_are_named_at_once(tmp_path, theirs):
    del theirs["conv.bias"]
    theirs["linear.weight"] = theirs["linear.weight"][:, :4].copy()
    theirs |= {f"loss.{i}": np.zeros(1, np.float32) for i in range(5)}
    message = message_of(tmp_path, theirs)
    assert "missing in the file: conv.bias;" in message
    assert "unused in the file: loss.0, loss.1, loss.2 and 2 more;" in message
    assert "linear.weight float32[7, 4] -> linear/0 float32[5, 7] by linear" in message
    assert message.count("conv.weight") == 0, "what fits is not named"


def test_ignored_arrays_may_stay_unused(tmp_path, theirs):
    theirs |= {"loss.a": np.zeros(1, np.float32), "lossy": np.zeros(1, np.float32)}
    save_file(theirs, tmp_path / "w.safetensors")
    file = read_weights(tmp_path / "w.safetensors")
    assign(abstract(), file, NAMES, ignored=("loss.", "lossy"))
    assert "unused in the file: lossy" in message_of(tmp_path, theirs, ignored=("loss.",))


def test_faults_of_the_map(tmp_path, theirs):
    names = [*NAMES[:2], NamedWeight("linear/0", "linear.weight", Turn.LINEAR)]
    message = message_of(tmp_path, theirs, [*names, NamedWeight("linear/9", "pointwise.weight")])
    assert "leaves that the map leaves out: linear/1;" in message
    assert "in the map but not in the tree: linear/9" in message
    twice = [*NAMES, NamedWeight("conv/bias", "conv.bias")]
    assert "mapped twice: conv/bias" in message_of(tmp_path, theirs, twice)


@pytest.mark.parametrize(
    "name, array",
    [
        ("conv.weight", np.zeros((5, 2, 12), np.float32)),
        ("linear.weight", np.zeros((7, 5, 1), np.float32)),
        ("pointwise.weight", np.zeros((6, 5, 1, 2), np.float32)),
        ("pointwise.weight", np.zeros((6,), np.float32)),
        ("conv.bias", np.zeros((5,), np.int64)),
    ],
)
def test_arrays_that_cannot_be_turned(tmp_path, theirs, name, array):
    message = message_of(tmp_path, theirs | {name: array})
    assert f"of a wrong shape or dtype: {name} {array.dtype}{list(array.shape)}" in message


def test_square_weights_are_turned_too(tmp_path):
    """Their shape does not tell: only the map does."""
    weight = np.arange(9, dtype=np.float32).reshape(3, 3)
    save_file({"w": weight}, tmp_path / "w.safetensors")
    tree = {"w": jax.ShapeDtypeStruct((3, 3), np.float32)}
    file = read_weights(tmp_path / "w.safetensors")
    for turn, want in ((Turn.LINEAR, weight.T), (Turn.AS_IS, weight)):
        got = assign(tree, file, [NamedWeight("w", "w", turn)])
        np.testing.assert_array_equal(got["w"], want)


@pytest.mark.parametrize("kept", [0, 5, 8, 60, -1])
def test_truncated(tmp_path, theirs, kept):
    path = by_hand(tmp_path / "w.safetensors", theirs)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(LabError, match=r"w\.safetensors: not a whole safetensors file"):
        read_weights(path)


def test_foreign_files(tmp_path, theirs):
    zipped = b"PK\x03\x04" + b"\0" * 64
    for name, content in [
        ("model.ckpt", zipped),
        ("model.safetensors", zipped),
        ("model.pth", b""),
        ("renamed", b"\x80\x04\x95\x10"),
    ]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(LabError, match=rf"{name}: .* only safetensors is read, and no pickle"):
            read_weights(tmp_path / name)
    with pytest.raises(LabError, match="nowhere: no such file"):
        read_weights(tmp_path / "nowhere")
    with pytest.raises(LabError, match="no such file"):
        read_weights(tmp_path)


def test_unknown_dtype(tmp_path):
    header = json.dumps({"f8": {"dtype": "F8_E5M2", "shape": [2], "data_offsets": [0, 2]}})
    path = tmp_path / "w.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header.encode() + b"\0\0")
    with pytest.raises(LabError, match='array "f8" is of F8_E5M2; allowed are F64'):
        read_weights(path)
