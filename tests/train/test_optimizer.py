"""AdamW, schedules and the width rule against hand-written references."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lab.layers.parameters import axes_of, is_parameter
from lab.models import families
from lab.train import optimizer as opt
from lab.train.step import training_loss
from tests.models.worlds import config, generator

CODES = families.Codes(vocabulary=8, grid=(2, 2, 3), classes=2)


def rates(schedule, total=100, warmup=10, **overrides):
    run = config(
        **{
            "optimizer.schedule": schedule,
            "optimizer.learning_rate": 1.0,
            "optimizer.cooldown_fraction": 0.2,
            **{f"optimizer.{k}": v for k, v in overrides.items()},
        }
    )
    return [
        opt.learning_rate(run.optimizer, s, total_steps=total, warmup_steps=warmup)
        for s in range(total)
    ]


def test_wsd_schedule():
    r = rates("wsd")
    assert r[:10] == pytest.approx([(s + 1) / 10 for s in range(10)])
    assert r[10:80] == pytest.approx([1.0] * 70)
    assert r[80:] == pytest.approx([(100 - s) / 20 for s in range(80, 100)])


def test_cosine_and_constant_schedules():
    r = rates("cosine", final_fraction=0.1)
    want = [0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * (s - 10) / 90)) for s in range(10, 100)]
    assert r[10:] == pytest.approx(want)
    assert rates("constant")[10:] == [1.0] * 90
    assert rates("wsd", total=50, warmup=0)[0] == 1.0


def test_update_against_adamw_in_float64():
    """Three updates of the whole model: clip, moments, bias correction, width rule, decay."""
    run = config(
        "s3",
        **{"optimizer.weight_decay": 0.1, "optimizer.base_width": 12, "optimizer.clip_norm": 0.5},
    )
    o = run.optimizer
    model = generator(run, CODES)
    transform = opt.direction(o)
    state = transform.init(model)
    tokens = jax.random.randint(jax.random.key(3), (4, 12, 1), 0, 8)
    batch = {"codes": tokens, "label": jnp.arange(4) % 2, "weight": jnp.ones(4)}

    flat, _ = jax.tree.flatten(model, is_leaf=is_parameter)
    roles = [p.get_metadata("role") for p in flat]
    want = [np.asarray(p[...], np.float64) for p in flat]
    m = [np.zeros_like(w) for w in want]
    v = [np.zeros_like(w) for w in want]
    gradient = jax.jit(jax.grad(training_loss))
    numbers = opt.numbers_at(o, 0.01)

    @jax.jit
    def updated(model, grads, state):
        updates, state = transform.update(grads, state, model)
        return opt.apply_update(model, updates, numbers, optimizer=o, width=48), state

    for step in range(1, 4):
        grads = gradient(model, batch, None)
        g = [np.asarray(x, np.float64) for x in jax.tree.leaves(grads)]
        norm = math.sqrt(sum(float((x**2).sum()) for x in g))
        g = [x * min(1.0, 0.5 / norm) for x in g]
        for i, role in enumerate(roles):
            m[i] = o.beta1 * m[i] + (1 - o.beta1) * g[i]
            v[i] = o.beta2 * v[i] + (1 - o.beta2) * g[i] ** 2
            hat = m[i] / (1 - o.beta1**step)
            hat = hat / (np.sqrt(v[i] / (1 - o.beta2**step)) + o.epsilon)
            multiplier = 12 / 48 if role in ("hidden", "head") else 1.0
            decay = 0.0 if role == "scale" else 0.1
            want[i] = want[i] - 0.01 * (multiplier * hat + decay * want[i])
        model, state = updated(model, grads, state)
    for got, expected in zip(jax.tree.leaves(model), want, strict=True):
        np.testing.assert_allclose(got, expected, rtol=2e-4, atol=2e-6)


def test_ema_against_loop():
    average, params, want = jnp.zeros(3), jnp.arange(3.0), np.zeros(3)
    for step in range(30):
        params = params + 1
        average = opt.ema_update(average, params, decay=0.9, step=jnp.int32(step))
        d = min(0.9, (1 + step) / (10 + step))
        want = d * want + (1 - d) * np.asarray(params)
    np.testing.assert_allclose(average, want, rtol=1e-5)


START = {"mup": ("mup", 0.3), "completep": ("completep", 0.3), "none": ("normal", 0.02)}


def coordinate_sizes(rule, width, depth=2):
    """Mean absolute change of the residual stream, and the logits' spread, after 3 updates."""
    run = config(
        "s4",
        **{
            "model.depth": depth,
            "model.width": width,
            "model.heads": width // 16,
            "model.mlp_hidden": width * 3,
            "model.init": START[rule][0],
            "model.init_std": START[rule][1],
            "optimizer.width_rule": "none" if rule == "none" else "mup",
            "optimizer.base_width": 32,
            "optimizer.depth_rule": "completep" if rule == "completep" else "none",
        },
    )
    make = families.builder(run.model, CODES, families.Running(compute_dtype="float32"))
    tokens = jax.random.randint(jax.random.key(3), (16, 12, 1), 0, 8)
    batch = {"codes": tokens, "label": jnp.arange(16) % 2, "weight": jnp.ones(16)}
    o = dataclasses.replace(run.optimizer, clip_norm=0.0)
    transform, numbers = opt.direction(o), opt.numbers_at(o, 0.001)

    def features(model):
        return model.order.features(model, tokens, batch["label"], None)

    @jax.jit
    def updated(model, state):
        gradient = jax.grad(training_loss)(model, batch, None)
        updates, state = transform.update(gradient, state, model)
        return opt.apply_update(model, updates, numbers, optimizer=o, width=width), state

    @jax.jit
    def sizes(first, last):
        before, after = features(first), features(last)
        return jnp.mean(jnp.abs(after - before)), jnp.std(last.head.logits(after))

    first = model = jax.jit(make)(jax.random.key(0))
    state = transform.init(model)
    for _ in range(3):
        model, state = updated(model, state)
    change, spread = sizes(first, model)
    return float(change), float(spread)


def test_coordinate_check():
    """Updates of features and logits are flat over a factor 16 in width under "mup" only."""
    narrow, wide = coordinate_sizes("mup", 32), coordinate_sizes("mup", 512)
    assert 0.5 < wide[0] / narrow[0] < 2.0
    assert 0.5 < wide[1] / narrow[1] < 2.0
    narrow, wide = coordinate_sizes("none", 32), coordinate_sizes("none", 256)
    assert wide[0] / narrow[0] > 4 and wide[1] / narrow[1] > 4


def test_coordinate_check_of_depth():
    """Updates are flat over a factor 4 in depth under "completep" only; two blocks are equal."""
    assert coordinate_sizes("completep", 32) == coordinate_sizes("mup", 32)
    shallow, deep = (coordinate_sizes("completep", 32, depth) for depth in (8, 32))
    assert 0.7 < deep[0] / shallow[0] < 1.4
    assert 0.7 < deep[1] / shallow[1] < 1.4
    shallow, deep = (coordinate_sizes("mup", 32, depth) for depth in (8, 32))
    assert deep[0] / shallow[0] > 1.6


def test_depth_rule_by_hand():
    """The last matrices of branches start at 1 / (depth sqrt(fan in)), and learn by 2 / depth."""
    run = config(
        "s4", **{"model.depth": 8, "model.init": "completep", "optimizer.depth_rule": "completep"}
    )
    make = families.builder(run.model, CODES, families.Running(compute_dtype="float32"))
    layers = make(jax.random.key(0)).backbone.layers
    width, hidden = run.model.width, run.model.mlp_hidden
    stds = [np.std(part[...]) for part in (layers.attention.out, layers.mlp.down, layers.mlp.up)]
    np.testing.assert_allclose(stds, [width**-0.5 / 8, hidden**-0.5 / 8, width**-0.5], rtol=0.03)
    rates = [
        opt.rate_multiplier(part, run.optimizer, width=width)
        for part in (layers.attention.out, layers.mlp.down, layers.mlp.up, layers.mlp_norm.scale)
    ]
    np.testing.assert_allclose(rates, [32 / width / 4, 32 / width / 4, 32 / width, 1])


def test_axes_of_stacked_parameters():
    model = jax.eval_shape(
        families.builder(config("s4").model, CODES, families.Running(compute_dtype="float32")),
        jax.random.key(0),
    )
    assert axes_of(model.backbone.layers.mlp.gate) == ("layers", "embed", "mlp")
    assert axes_of(model.head.out) == ("embed", "vocab")
    assert axes_of(model.head.norm.scale) == ("embed_out",)
    assert axes_of(3) is None
