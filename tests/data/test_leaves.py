"""The generator of dead leaves against closed forms, and what its ten classes have to differ in."""

import dataclasses
import math

import numpy as np
import pytest

from lab.data import leaves
from lab.data.leaves import BLOCK, CLASSES, Knobs, make_block
from lab.data.shapes import CELLS, REACH, SHAPES, atlas, reaches

SMALL = Knobs(leaves=60)


@pytest.mark.parametrize("index", range(len(SHAPES)))
def test_every_shape_has_the_area_of_the_unit_disc(index):
    area = atlas()[index].sum() * (2 * REACH / CELLS) ** 2
    assert area == pytest.approx(math.pi, rel=0.05)


def test_no_shape_touches_the_border_of_the_atlas():
    masks = atlas()
    edges = [masks[:, 0], masks[:, -1], masks[:, :, 0], masks[:, :, -1]]
    assert not any(edge.any() for edge in edges)


def test_reaches_are_circumradii():
    cell = 2 * REACH / CELLS
    exact = {
        "disc": 1.0,
        "square": math.sqrt(math.pi / 2),
        "triangle": math.sqrt(math.pi / (0.75 * math.sqrt(3))),
        "hexagon": math.sqrt(math.pi / (1.5 * math.sqrt(3))),
    }
    found = dict(zip(SHAPES, reaches(), strict=True))
    for shape, reach in exact.items():
        assert found[shape] == pytest.approx(reach, abs=1.5 * cell)


@pytest.mark.parametrize("exponent", [1.5, 2.0, 3.0])
def test_radii_follow_the_power_law(exponent):
    low, high = 3.0, 16.0
    uniform = np.random.default_rng(0).random(200_000)
    found = np.sort(leaves.radii(uniform, np.float64(exponent), np.float64(low), np.float64(high)))
    power = 1 - exponent
    exact = (found**power - low**power) / (high**power - low**power)
    empirical = (np.arange(found.size) + 0.5) / found.size
    assert np.abs(exact - empirical).max() < 1.95 / math.sqrt(found.size)  # Kolmogorov, p < 0.001
    assert found[0] >= low and found[-1] <= high


def test_thrown_sizes_have_the_exponent_of_their_class():
    blocks = [leaves.throw(SMALL, 0, "train", block) for block in range(12)]
    label = np.concatenate([block.label for block in blocks])
    radius = np.concatenate([block.radius for block in blocks])
    grid = np.linspace(0.5, 4.5, 401)
    for index, law in enumerate(CLASSES):
        logs = np.log(radius[label == index] / SMALL.radius_scale).reshape(-1)
        line = np.linspace(math.log(law.radius_min), math.log(law.radius_max), 2001)
        # log-likelihood of density r**-a on [low, high], by quadrature in log r
        norm = np.log(np.trapezoid(np.exp((1 - grid[:, None]) * line), line, axis=1))
        likelihood = -grid * logs.mean() - norm
        assert grid[likelihood.argmax()] == pytest.approx(law.exponent, abs=0.2), law.shape


def first_hit(knobs, thrown, image, row, column):
    """The front leaf at a pixel's centre, by a loop over leaves in double precision."""
    mask = atlas()[list(SHAPES).index(CLASSES[thrown.label[image]].shape)]
    for leaf in range(knobs.leaves - 1):
        dx, dy = column + 0.5 - thrown.x[image, leaf], row + 0.5 - thrown.y[image, leaf]
        cos, sin = math.cos(thrown.angle[image, leaf]), math.sin(thrown.angle[image, leaf])
        scale = CELLS / (2 * REACH) / thrown.radius[image, leaf]
        u = (cos * dx + sin * dy) * scale + CELLS / 2
        v = (cos * dy - sin * dx) * scale + CELLS / 2
        if 0 <= u < CELLS and 0 <= v < CELLS and mask[int(v), int(u)]:
            return leaf
    return knobs.leaves - 1


def test_front_leaf_equals_a_loop_over_pixels():
    knobs = Knobs(leaves=25, size=16)
    thrown = leaves.throw(knobs, 3, "train", 0)
    seen = leaves.front_leaf(knobs, thrown)[:6]
    expected = [
        [[first_hit(knobs, thrown, i, r, c) for c in range(16)] for r in range(16)]
        for i in range(6)
    ]
    assert (seen != np.array(expected)).mean() < 0.003  # single precision at a cell's border


def test_the_canvas_is_covered():
    knobs = Knobs()
    thrown = leaves.throw(knobs, 0, "train", 0)
    assert (leaves.front_leaf(knobs, thrown) == knobs.leaves - 1).mean() < 0.01


def test_flat_leaves_without_light_show_palette_colours_only():
    knobs = dataclasses.replace(SMALL, gradient_depth=0.0, illumination=0.0)
    block = make_block(knobs, 0, "train", 0)
    palette = leaves.palette_of(knobs).rgb
    for image, label in zip(block.images, block.labels, strict=True):
        colours = {tuple(colour) for colour in np.floor(palette[label] + 0.5).astype(int).tolist()}
        assert {tuple(colour) for colour in image.reshape(-1, 3).tolist()} <= colours


def test_colours_follow_the_zipf_law():
    knobs = Knobs(palette=20, zipf=1.0, image_colours=0, leaves=200)
    ranks = np.concatenate([leaves.throw(knobs, 0, "train", b).colour for b in range(8)])
    found = np.bincount(ranks.reshape(-1), minlength=20) / ranks.size
    law = 1 / np.arange(1, 21)
    assert found == pytest.approx(law / law.sum(), abs=0.006)


def test_an_image_uses_few_colours():
    colour = leaves.throw(Knobs(image_colours=3), 0, "train", 0).colour
    assert max(len(set(row)) for row in colour.tolist()) == 3


def test_a_block_is_a_function_of_seed_split_and_index():
    first = make_block(SMALL, 0, "train", 1)
    again = make_block(SMALL, 0, "train", 1)
    assert np.array_equal(first.images, again.images)
    assert np.array_equal(first.labels, again.labels)
    others = [(0, "train", 2), (1, "train", 1), (0, "validation", 1)]
    for seed, split, index in others:
        assert not np.array_equal(first.images, make_block(SMALL, seed, split, index).images)


def test_all_classes_occur_about_equally():
    labels = np.concatenate([leaves.throw(SMALL, 0, "train", b).label for b in range(40)])
    counts = np.bincount(labels, minlength=10)
    expected = len(labels) / 10
    assert ((counts - expected) ** 2 / expected).sum() < 27.9  # chi-square, 9 degrees, p = 0.001


def test_classes_differ_in_colour_and_in_shape():
    blocks = [make_block(SMALL, 0, "train", b) for b in range(6)]
    images = np.concatenate([block.images for block in blocks])
    labels = np.concatenate([block.labels for block in blocks])
    bins = (images // 64).reshape(len(images), -1, 3) @ np.array([16, 4, 1])
    histogram = np.stack([np.bincount(row, minlength=64) for row in bins]).astype(float)
    half = 3 * BLOCK
    centroid = np.stack([histogram[:half][labels[:half] == c].mean(0) for c in range(10)])
    distance = ((histogram[half:, None] - centroid) ** 2).sum(-1)
    assert (distance.argmin(1) == labels[half:]).mean() > 0.4  # chance is 0.1


def test_knobs_change_the_images():
    plain = make_block(SMALL, 0, "train", 0).images
    for change in ({"world": 1}, {"zipf": 2.0}, {"illumination": 0.3}, {"position_step": 4.0}):
        changed = make_block(dataclasses.replace(SMALL, **change), 0, "train", 0).images
        assert not np.array_equal(plain, changed), change
