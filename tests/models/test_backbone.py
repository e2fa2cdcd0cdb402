"""The Llama blocks with modulation against float64 NumPy; one position at a time against all."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lab.core.errors import LabError
from lab.layers.attention import Mask
from lab.layers.parameters import Init
from lab.layers.positions import grid_angles, with_prefix
from lab.models.backbone import Backbone, BackboneSpec
from tests.layers import transformer_reference as ref

MODULATIONS = ("none", "shared", "blocks")
WAYS = [*((modulation, False) for modulation in MODULATIONS), ("none", True)]
ANGLES_TK = with_prefix(grid_angles(2, 2, head_features=8, base=100.0))
POSITIONS = len(ANGLES_TK)


def spec(**changes):
    base = {
        "depth": 2,
        "width": 16,
        "heads": 2,
        "mlp_hidden": 24,
        "norm_epsilon": 1e-5,
        "residual_dropout": 0.0,
        "mlp_dropout": 0.0,
        "init": Init(rule="mup", std=1.0),
        "mask": Mask.CAUSAL,
        "platform": "cpu",
    }
    return BackboneSpec(**{**base, **changes})


def make(**changes):
    return functools.partial(Backbone, spec=spec(**changes))


def draw(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def turned(x):
    """Rotary positions as complex multiplications, head by head."""
    out = np.zeros_like(x)
    for head in range(2):
        part = slice(8 * head, 8 * head + 8)
        z = (x[:, part][:, :4] + 1j * x[:, part][:, 4:]) * np.exp(1j * ANGLES_TK)
        out[:, part] = np.concatenate([z.real, z.imag], axis=1)
    return out


def queries_keys(x, part):
    q, k = (x @ ref.f64(w[...]) for w in (part.query, part.key))
    if part.qk_norm:
        heads = (len(x), 2, 8)
        q = ref.rms_norm(q.reshape(heads), part.query_norm, 1e-5).reshape(q.shape)
        k = ref.rms_norm(k.reshape(heads), part.key_norm, 1e-5).reshape(k.shape)
    return turned(q), turned(k)


def attention(x, part, causal):
    v = x @ ref.f64(part.value[...])
    seen = np.tril(np.ones((len(x), len(x)), bool)) if causal else None
    return ref.attend(*queries_keys(x, part), v, 2, seen) @ ref.f64(part.out[...])


def swiglu(x, part):
    gate, up, down = (ref.f64(w[...]) for w in (part.gate, part.up, part.down))
    return (ref.silu(x @ gate) * (x @ up)) @ down


def weights(x, part, causal):
    seen = np.tril(np.ones((len(x), len(x)), bool)) if causal else None
    return ref.weights(*queries_keys(x, part), 2, seen)


def features(x, condition, backbone, causal=True, seen_by=None):
    """One image (T, D); `seen_by` gets the input and the attention weights of each block."""
    kind = backbone.spec.modulation
    for index in range(backbone.spec.depth):
        block = ref.layer(backbone.layers, index)
        six = np.zeros((6, x.shape[1]))
        six[2] = six[5] = 1
        if kind == "shared":
            shared = ref.affine(ref.silu(condition), backbone.modulation.project)
            six = shared.reshape(6, -1) + ref.f64(block.offset[...])
        if kind == "blocks":
            own = ref.affine(ref.silu(condition), block.modulation.project)
            six = own.reshape(6, -1)
        h = ref.rms_norm(x, block.attention_norm, 1e-5) * (1 + six[1]) + six[0]
        if seen_by is not None:
            seen_by.append((x, weights(h, block.attention, causal)))
        x = x + six[2] * attention(h, block.attention, causal)
        h = ref.rms_norm(x, block.mlp_norm, 1e-5) * (1 + six[4]) + six[3]
        x = x + six[5] * swiglu(h, block.mlp)
    return x


@pytest.mark.parametrize(("modulation", "qk_norm"), WAYS)
def test_against_a_reference(modulation, qk_norm):
    backbone = ref.random(make(modulation=modulation, qk_norm=qk_norm))
    x_BTD, condition_BD = draw(0, 2, POSITIONS, 16), draw(1, 2, 16)
    got = jax.jit(lambda m, *given: m(given[0], ANGLES_TK, None, given[1]))(
        backbone, x_BTD, condition_BD
    )
    images = zip(ref.f64(x_BTD), ref.f64(condition_BD), strict=True)
    want = np.stack([features(x, c, backbone) for x, c in images])
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


OBSERVED = [(*way, mask) for way in WAYS for mask in Mask]
FAST = [("shared", False, Mask.CAUSAL), ("none", True, Mask.CAUSAL), ("blocks", False, Mask.FULL)]


@pytest.mark.parametrize(
    ("modulation", "qk_norm", "mask"),
    [way if way in FAST else pytest.param(*way, marks=pytest.mark.slow) for way in OBSERVED],
)
def test_observed_inputs_and_weights_against_a_reference(modulation, qk_norm, mask):
    backbone = ref.random(make(modulation=modulation, qk_norm=qk_norm, mask=mask))
    x_BTD, condition_BD = draw(0, 2, POSITIONS, 16), draw(1, 2, 16)

    def observe(m, x, c):
        return m.observe(x, ANGLES_TK, c, lambda x, weights: (x, weights()))

    out, (inputs, weights_NBHQK) = jax.jit(observe)(backbone, x_BTD, condition_BD)
    for image in range(2):
        want = []
        x, c = ref.f64(x_BTD[image]), ref.f64(condition_BD[image])
        last = features(x, c, backbone, mask is Mask.CAUSAL, want)
        np.testing.assert_allclose(out[image], last, rtol=1e-4, atol=1e-4)
        for layer, (x, each) in enumerate(want):
            np.testing.assert_allclose(inputs[layer, image], x, rtol=1e-4, atol=1e-4)
            np.testing.assert_allclose(weights_NBHQK[layer, image], each, rtol=1e-3, atol=1e-5)
    assert len(want) == len(inputs) == 2 and np.abs(want[0][1] - want[1][1]).max() > 0.1


def test_normed_queries_and_keys_bound_the_logits():
    """Queries and keys a thousand times larger change nothing, and start with scales of one."""
    start = jax.jit(lambda key: make(qk_norm=True)(key).layers.attention.query_norm.scale[...])
    assert np.all(np.asarray(start(jax.random.key(0))) == 1)
    attention = ref.layer(ref.random(make(qk_norm=True)).layers, 0).attention
    x_BTD = draw(0, 2, POSITIONS, 16)
    weights = jax.jit(lambda part: part.weights(x_BTD, ANGLES_TK))
    plain = weights(attention)
    attention.query[...], attention.key[...] = 1e3 * attention.query[...], 1e3 * attention.key[...]
    np.testing.assert_allclose(weights(attention), plain, rtol=1e-3, atol=1e-4)


def test_infill_sees_the_class_and_drops_its_position():
    backbone = ref.random(make(modulation="shared", mask=Mask.FULL))
    x_BTD, class_BD = draw(0, 2, POSITIONS - 1, 16), draw(1, 2, 16)
    hidden_BT = jnp.zeros(x_BTD.shape[:2], bool)
    got = jax.jit(
        lambda m, x, c: m.infill(
            x, hidden_BT, c, ANGLES_TK, None, condition_BD=2 * c, visible_limit=3
        )
    )(backbone, x_BTD, class_BD)
    for image in range(2):
        c = ref.f64(class_BD[image])
        full = np.concatenate([c[None], ref.f64(x_BTD[image])])
        want = features(full, 2 * c, backbone, causal=False)[1:]
        np.testing.assert_allclose(got[image], want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("modulation", "unroll", "qk_norm"),
    [
        pytest.param("none", False, False, marks=pytest.mark.slow),
        pytest.param("none", True, True, marks=pytest.mark.slow),
        ("shared", False, True),
        ("blocks", True, False),
    ],
)
def test_one_position_at_a_time_is_the_causal_pass(modulation, unroll, qk_norm):
    """In one compiled loop, in a cache longer than the positions, whose rest is not read."""
    made = make(modulation=modulation, unroll=unroll, qk_norm=qk_norm)
    backbone = ref.random(made, size=0.25)
    x_BTD, condition_BD = draw(0, 2, POSITIONS, 16), draw(1, 2, 16)

    def steps(backbone, x_BTD, condition_BD):
        cache = backbone.empty_cache(2, POSITIONS + 2, x_BTD.dtype)
        cache = jax.tree.map(lambda zeros: zeros + 1e3, cache)

        def body(cache, index):
            y_BD, cache = backbone.step(x_BTD[:, index], cache, index, ANGLES_TK, condition_BD)
            return cache, y_BD

        return jax.lax.scan(body, cache, jnp.arange(POSITIONS))[1].swapaxes(0, 1)

    got = jax.jit(steps)(backbone, x_BTD, condition_BD)
    want = jax.jit(lambda m, *given: m(given[0], ANGLES_TK, None, given[1]))(
        backbone, x_BTD, condition_BD
    )
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    assert np.abs(np.asarray(want - x_BTD)).max() > 0.1


@pytest.fixture(scope="module")
def fresh():
    """A backbone of each modulation as it starts from one key; compiled together."""
    return jax.jit(lambda key: {m: make(modulation=m)(key) for m in MODULATIONS})(jax.random.key(3))


def test_blocks_start_as_the_identity_where_their_own_projection_gates_them(fresh):
    x_BTD = draw(0, 2, POSITIONS, 16)
    call = jax.jit(lambda m, x, c: m(x, ANGLES_TK, None, c))
    np.testing.assert_array_equal(call(fresh["blocks"], x_BTD, draw(1, 2, 16)), x_BTD)


def test_modulation_does_not_move_the_other_draws(fresh):
    for part in ("attention", "mlp"):
        plain, *others = (jax.tree.leaves(getattr(fresh[m].layers, part)) for m in MODULATIONS)
        for other in others:
            for a, b in zip(plain, other, strict=True):
                np.testing.assert_array_equal(a, b)
    offset = np.asarray(fresh["shared"].layers.offset[...])
    assert offset.shape == (2, 6, 16) and 0.15 < offset.std() < 0.35  # 1 / sqrt(16)


def test_a_modulated_backbone_needs_its_condition():
    backbone = ref.random(make(modulation="blocks"))
    with pytest.raises(LabError, match="condition"):
        jax.eval_shape(lambda m, x: m(x, ANGLES_TK, None), backbone, draw(0, 2, POSITIONS, 16))


def test_parameters_of_the_shared_modulation():
    """BiGR-L: one d x 6d projection with its bias, and 6 d of each of 24 blocks."""
    sizes = {"depth": 24, "width": 1024, "heads": 16, "mlp_hidden": 2816}
    plain, shared = (
        ref.size_of(jax.eval_shape(make(**sizes, modulation=m), jax.random.key(0)))
        for m in ("none", "shared")
    )
    assert round(plain / 1e6, 1) == 308.3
    assert shared - plain == 6 * 1024 * (1024 + 1) + 24 * 6 * 1024
    # In all: bits, mask, class table, prefix places, final norm, and the head's 20.3 M.
    rest = (24 + 1) * 1024 + 1024 + 1001 * 1024 + 256 * 1024 + 1024
    assert round((shared + rest + 20_255_768) / 1e6, 1) == 336.3


@pytest.mark.parametrize("modulation", ["shared", "blocks"])
def test_flops_against_xla(modulation):
    """Of one image; XLA makes all pairs of so few positions, masked or not."""
    wide = {"width": 128, "heads": 1, "mlp_hidden": 256, "unroll": True}
    angles_TK = grid_angles(4, 4, head_features=128, base=100.0)
    backbone = jax.eval_shape(make(modulation=modulation, **wide), jax.random.key(0))
    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((1, 16, 128), (1, 128))]
    call = jax.jit(lambda m, x, c: m(x, angles_TK, None, c))
    found = call.lower(backbone, *shapes).compile().cost_analysis()["flops"]
    counted = sum(backbone.forward_flops(16, causal=False))
    assert 1.0 <= found / counted < 1.05
    assert backbone.infill_flops(15) == backbone.forward_flops(16, causal=False)
    causal = backbone.forward_flops(16, causal=True)
    assert causal.attention == 2 * 4 * 128 * 16 * 17 / 2
