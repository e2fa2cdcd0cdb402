"""Dead leaves: occluding shapes with power-law sizes (Lee, Mumford & Huang, IJCV 2001).

Leaves are thrown front to back until the canvas is covered. All leaves of an image have the shape,
the size law and the palette of the image's class. Every image is a pure function of
(knobs, seed, split, index): images are made in blocks, and a block owns one Philox stream.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from lab.data.shapes import CELLS, REACH, SHAPES, atlas, reaches

REVISION = 1  # raise it whenever the same knobs give other pixels
BLOCK = 64  # images a block; part of the meaning of an index, so never a knob
SPLITS = ("train", "validation")


@dataclasses.dataclass(frozen=True)
class ClassLaw:
    """What sets one class apart, beside its palette: p(radius) ~ radius**-exponent, in pixels."""

    shape: str
    exponent: float
    radius_min: float
    radius_max: float
    stripes: float  # probability that a leaf is striped
    gradient: float  # probability that a leaf carries a linear gradient
    period: float  # of the stripes, in pixels


CLASSES = (
    ClassLaw("disc", 3.0, 3.0, 16.0, 0.00, 0.20, 8.0),
    ClassLaw("square", 2.5, 3.0, 14.0, 0.30, 0.00, 8.0),
    ClassLaw("triangle", 2.0, 3.0, 12.0, 0.00, 0.00, 8.0),
    ClassLaw("ellipse", 3.0, 4.0, 18.0, 0.00, 0.50, 8.0),
    ClassLaw("bar", 1.5, 2.5, 10.0, 0.20, 0.20, 6.0),
    ClassLaw("ring", 2.0, 4.0, 14.0, 0.00, 0.30, 8.0),
    ClassLaw("cross", 2.5, 4.0, 14.0, 0.40, 0.00, 10.0),
    ClassLaw("star", 2.0, 4.0, 16.0, 0.00, 0.30, 8.0),
    ClassLaw("half_disc", 3.0, 3.5, 18.0, 0.20, 0.20, 12.0),
    ClassLaw("hexagon", 2.5, 5.0, 12.0, 0.60, 0.20, 12.0),
)


@dataclasses.dataclass(frozen=True)
class Knobs:
    """What the images are like; a data set's identity includes every field.

    Structure that a model can learn: the palette of each class and its Zipf law (more colours, or
    a flatter law: more to store), the partner of each colour in stripes and gradients, the few
    colours that an image uses again and again (fewer: more gain from attention), the shapes.
    Chance that no model can learn: where leaves lie and how big they are (coarser position_step
    and angles: less of it).
    """

    size: int = 32  # pixels a side
    palette: int = 32  # colours a class owns
    zipf: float = 1.0  # p(colour of rank r) ~ r**-zipf
    image_colours: int = 4  # colours an image draws from its palette; 0: every leaf draws anew
    class_tint: float = 0.35  # 0: palettes fill the RGB cube; 1: one colour a class
    gradient_depth: float = 0.6  # share of the way to the partner colour across a leaf
    illumination: float = 0.12  # relative brightness at the edge of a light gradient
    angles: int = 16  # orientations of a leaf in a full turn; 0: any
    position_step: float = 0.0  # pixels between possible centres; 0: anywhere
    radius_scale: float = 1.6  # multiplies the radii of every class
    leaves: int = 160  # at most; the last one fills what is still bare
    world: int = 0  # seed of the palettes: images of all seeds share one world


@dataclasses.dataclass(frozen=True)
class Palette:
    """Colours (class, palette, 3) float32 in [0, 255], and partners (class, palette)."""

    rgb: np.ndarray
    partner: np.ndarray
    cumulative: np.ndarray  # of the Zipf law, (palette,)


@functools.cache
def palette_of(knobs: Knobs) -> Palette:
    """The palettes of the ten classes; a function of knobs.world, not of the images' seed."""
    count = len(CLASSES)
    draw = _uniforms(knobs.world, 2**32, (count, knobs.palette + 1, 4))
    tint = draw[:, -1:, :3]
    rgb = knobs.class_tint * tint + (1 - knobs.class_tint) * draw[:, :-1, :3]
    law = np.arange(1, knobs.palette + 1) ** -knobs.zipf
    partner = np.argsort(draw[:, :-1, 3], axis=1)
    cumulative = np.cumsum(law / law.sum())
    cumulative[-1] = 1.0
    return Palette((16 + 224 * rgb).astype(np.float32), partner, cumulative)


def _uniforms(seed: int, stream: int, shape: tuple[int, ...]) -> np.ndarray:
    """Uniforms in [0, 1) from one Philox stream: raw bits, whose values NumPy promises to keep."""
    bits = np.random.Philox(key=np.array([seed, stream], np.uint64))
    raw = np.asarray(bits.random_raw(int(np.prod(shape))), np.uint64)
    return ((raw >> np.uint64(11)) * 2.0**-53).reshape(shape)


def radii(uniform: np.ndarray, exponent: np.ndarray, low: np.ndarray, high: np.ndarray):
    """Radii with density ~ r**-exponent on [low, high] (exponent not 1), by inversion."""
    power = 1.0 - exponent
    return (low**power + uniform * (high**power - low**power)) ** (1.0 / power)


@dataclasses.dataclass(frozen=True)
class Leaves:
    """A block of thrown leaves: arrays (image, leaf), front leaf first; label is (image,)."""

    label: np.ndarray
    x: np.ndarray
    y: np.ndarray
    radius: np.ndarray
    angle: np.ndarray
    colour: np.ndarray  # rank in the palette of the class
    texture: np.ndarray  # 0 flat, 1 gradient, 2 stripes
    light: np.ndarray  # (image, 2): brightness gradient along x and y, at the edge


def throw(knobs: Knobs, seed: int, split: str, block: int) -> Leaves:
    """The leaves of images [block * BLOCK, (block + 1) * BLOCK) of a split."""
    stream = SPLITS.index(split) * 2**33 + 2**34 + block
    head = knobs.image_colours + 3
    draw = _uniforms(seed, stream, (BLOCK, head + 6 * knobs.leaves))
    leaf = draw[:, head:].reshape(BLOCK, 6, knobs.leaves).swapaxes(0, 1)
    label = np.minimum((draw[:, 0] * len(CLASSES)).astype(np.int64), len(CLASSES) - 1)
    law = {name: _by_class(name)[label][:, None] for name in _LAW_FIELDS}
    radius = radii(leaf[0], law["exponent"], law["radius_min"], law["radius_max"])
    radius = radius * knobs.radius_scale
    # A centre may lie outside as far as the leaf reaches, so each pixel is equally likely covered.
    reach = radius * reaches()[label][:, None]
    x, y = (_snap(u * (knobs.size + 2 * reach) - reach, knobs.position_step) for u in leaf[1:3])
    turn = np.floor(leaf[3] * knobs.angles) / knobs.angles if knobs.angles else leaf[3]
    texture = (leaf[4] < law["stripes"] + law["gradient"]).astype(np.int64)
    texture += leaf[4] < law["stripes"]
    heading = 2 * np.pi * draw[:, 1]
    light = knobs.illumination * draw[:, 2] * np.stack([np.cos(heading), np.sin(heading)])
    colour = _colours(knobs, draw[:, 3:head], leaf[5])
    return Leaves(label, x, y, radius, 2 * np.pi * turn, colour, texture, light.T)


_LAW_FIELDS = ("exponent", "radius_min", "radius_max", "stripes", "gradient", "period")


@functools.cache
def _by_class(field: str) -> np.ndarray:
    return np.array([getattr(law, field) for law in CLASSES])


def _snap(position: np.ndarray, step: float) -> np.ndarray:
    return np.round(position / step) * step if step else position


def _colours(knobs: Knobs, image_draw: np.ndarray, leaf_draw: np.ndarray) -> np.ndarray:
    """Palette ranks (image, leaf): Zipf draws, or uniform picks of the image's own Zipf draws."""
    cumulative = palette_of(knobs).cumulative
    if not knobs.image_colours:
        return np.searchsorted(cumulative, leaf_draw, side="right")
    chosen = np.searchsorted(cumulative, image_draw, side="right")
    pick = (leaf_draw * knobs.image_colours).astype(np.int64)
    return np.take_along_axis(chosen, pick, axis=1)


def front_leaf(knobs: Knobs, leaves: Leaves) -> np.ndarray:
    """Index of the leaf seen at each pixel (image, row, column); the last leaf fills the rest."""
    count, area = leaves.label.size, knobs.size**2
    seen = np.full(count * area, knobs.leaves - 1, np.int32)
    maps = _atlas_maps(leaves)
    shape = np.array([list(SHAPES).index(law.shape) for law in CLASSES])[leaves.label]
    masks, base = atlas().reshape(-1), (shape * CELLS**2).astype(np.int32)
    row, column = np.divmod(np.arange(area, dtype=np.int32), knobs.size)
    image = np.repeat(np.arange(count, dtype=np.int32), area)
    pixel = np.arange(count * area, dtype=np.int32)
    x, y = np.tile(column, count) + np.float32(0.5), np.tile(row, count) + np.float32(0.5)
    for index in range(knobs.leaves - 1):
        cos, sin, u0, v0 = (m.take(image) for m in maps[index])
        u = np.clip(cos * x + sin * y + u0, 0, CELLS - 1).astype(np.int32)
        v = np.clip(cos * y - sin * x + v0, 0, CELLS - 1).astype(np.int32)
        hit = masks.take(base.take(image) + v * CELLS + u)
        seen[pixel[hit]] = index
        bare = np.flatnonzero(~hit)
        image, pixel, x, y = image.take(bare), pixel.take(bare), x.take(bare), y.take(bare)
        if not pixel.size:
            break
    return seen.reshape(count, knobs.size, knobs.size)


def _atlas_maps(leaves: Leaves) -> np.ndarray:
    """Affine maps from pixels to atlas cells (leaf, 4, image): cos, sin, and the two offsets."""
    cells_per_pixel = CELLS / (2 * REACH) / leaves.radius
    cos, sin = np.cos(leaves.angle) * cells_per_pixel, np.sin(leaves.angle) * cells_per_pixel
    u0 = CELLS / 2 - cos * leaves.x - sin * leaves.y
    v0 = CELLS / 2 - cos * leaves.y + sin * leaves.x
    maps = np.stack([cos, sin, u0, v0]).transpose(2, 0, 1)
    return np.ascontiguousarray(maps, np.float32)


def paint(knobs: Knobs, leaves: Leaves, seen: np.ndarray) -> np.ndarray:
    """Images (image, row, column, 3) uint8 from the leaf seen at each pixel."""
    count, size = leaves.label.size, knobs.size
    flat = (seen.reshape(count, -1) + np.arange(count)[:, None] * knobs.leaves).reshape(-1)

    def at_pixels(values: np.ndarray, dtype: type) -> np.ndarray:
        return values.astype(dtype).reshape(-1).take(flat).reshape(count, size, size)

    centre = np.arange(size, dtype=np.float32) + np.float32(0.5)
    x = centre[None, None, :] - at_pixels(leaves.x, np.float32)
    y = centre[None, :, None] - at_pixels(leaves.y, np.float32)
    along = at_pixels(np.cos(leaves.angle), np.float32) * x
    along += at_pixels(np.sin(leaves.angle), np.float32) * y
    half = (_by_class("period")[leaves.label] / 2).astype(np.float32)[:, None, None]
    across = along / (2 * at_pixels(leaves.radius, np.float32)) + np.float32(0.5)
    ramp = np.clip(across, 0, 1) * np.float32(knobs.gradient_depth)
    stripe = (np.floor(along / half).astype(np.int32) & 1).astype(np.float32)
    mix = np.choose(at_pixels(leaves.texture, np.int8), [np.float32(0), ramp, stripe])
    palette = palette_of(knobs)
    ranks = leaves.label[:, None] * knobs.palette + leaves.colour
    own = palette.rgb.reshape(-1, 3)
    partners = (np.arange(len(CLASSES))[:, None] * knobs.palette + palette.partner).reshape(-1)
    rank = at_pixels(ranks, np.int32)
    step = own[partners] - own
    rgb = own.take(rank, axis=0) + mix[..., None] * step.take(rank, axis=0)
    edge = (2 * centre / size - 1)[None, :]
    light = 1 + leaves.light.astype(np.float32)[:, :, None] * edge
    shade = light[:, 0, None, :] + light[:, 1, :, None] - 1
    return np.clip(rgb * shade[..., None] + np.float32(0.5), 0, 255).astype(np.uint8)


@dataclasses.dataclass(frozen=True)
class Block:
    """Images (image, row, column, 3) uint8 and their labels (image,)."""

    images: np.ndarray
    labels: np.ndarray


def make_block(knobs: Knobs, seed: int, split: str, block: int) -> Block:
    """Images [block * BLOCK, (block + 1) * BLOCK) of a split, and their labels."""
    leaves = throw(knobs, seed, split, block)
    return Block(paint(knobs, leaves, front_leaf(knobs, leaves)), leaves.label)
