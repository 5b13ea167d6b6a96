"""Procedural scenes: textured shapes before a textured background, with exact labels and masks.

Scene `i` is a function of the seed, `i` and the image size alone, and a larger image shows the same
scene in more detail: geometry lives in the unit square, x to the right and y downwards.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.floating]  # all float32, which stubs widen beside a Python float
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Bytes = NDArray[np.uint8]

MAX_OBJECTS = 4
COUNT_SHARES = (0.20, 0.35, 0.25, 0.20)  # of scenes with 1 to 4 objects, before any is left out
MAIN_AREA = (0.10, 0.36)  # of the image: what the main object takes
OTHER_AREA = (0.15, 0.40)  # of the main object's area, so that it stays the largest when covered
OVERLAP = 0.7  # how deep two objects may overlap, in radii of the smaller one
MIN_VISIBLE = 1 / 256  # of the image: an object with less left to see is not drawn
ROTATION = np.pi / 4  # at most, to either side
GROUND_COLOURS = (0.0, 0.65)  # range of red, green and blue
OBJECT_COLOURS = (0.35, 1.0)
CONTRAST = 0.2  # by how much an object should be brighter than the background
PERIOD = (0.1, 0.5)  # of stripes and checkers
LIGHT = 0.45  # by how much one side may be brighter than the other
NOISE = (0.01, 0.05)  # standard deviation of each pixel
TRIES = 8  # places and colours drawn for an object, of which the first that fits is taken
KNOTS = 8  # per side of the grid that smooth noise is interpolated from
CHUNK_PIXELS = 1 << 17  # drawn at once by one thread, in about 25 MB
WORKERS = min(4, os.cpu_count() or 1)


def _length(x: Floats, y: Floats) -> Floats:
    return np.sqrt(x * x + y * y)  # np.hypot guards against overflow and takes six times as long


def circle(x: Floats, y: Floats) -> Floats:
    return _length(x, y) - 1


def square(x: Floats, y: Floats) -> Floats:
    return np.maximum(abs(x), abs(y)) - 0.886


def triangle(x: Floats, y: Floats) -> Floats:
    return np.maximum(0.866 * abs(x) - 0.5 * y, y) - 0.778


def ring(x: Floats, y: Floats) -> Floats:
    return abs(_length(x, y) - 1) - 0.25


def hexagon(x: Floats, y: Floats) -> Floats:
    return np.maximum(0.866 * abs(x) + 0.5 * abs(y), abs(y)) - 0.952


def cross(x: Floats, y: Floats) -> Floats:
    x, y = abs(x), abs(y)
    return np.maximum(np.maximum(x, y) - 1.154, np.minimum(x, y) - 0.415)


def star(x: Floats, y: Floats) -> Floats:
    """Five points: mirroring folds the ten edges into one, whose distance is taken."""
    radius, inner = 1.541, 0.45
    x, y = abs(x), -y  # one point upwards
    for kx, ky in ((0.809, -0.588), (-0.809, -0.588)):
        fold = 2 * np.maximum(kx * x + ky * y, 0)
        x, y = x - kx * fold, y - ky * fold
    x, y = abs(x), y - radius
    edge_x, edge_y = inner * 0.588, inner * 0.809 - 1
    along = np.clip((x * edge_x + y * edge_y) / (edge_x**2 + edge_y**2), 0, radius)
    side = np.sign(y * edge_x - x * edge_y)
    return side * _length(x - edge_x * along, y - edge_y * along)


def crescent(x: Floats, y: Floats) -> Floats:
    x = x - 0.5  # brings the middle of what the inner disk leaves near the origin
    return np.maximum(_length(x, y) - 1.36, 1.05 - _length(x - 0.75, y))


# Signed distances, negative inside, after https://iquilezles.org/articles/distfunctions2d (Inigo
# Quilez). Those by maxima are exact only near the edges, which is all that is drawn. Each
# shape has the area of the unit disk, so that its size does not tell its class. The number is its
# share of all objects.
SHAPES: dict[Callable[[Floats, Floats], Floats], float] = {
    circle: 0.20,
    square: 0.18,
    triangle: 0.15,
    ring: 0.13,
    hexagon: 0.11,
    cross: 0.10,
    star: 0.08,
    crescent: 0.05,
}
CLASSES: tuple[str, ...] = tuple(shape.__name__ for shape in SHAPES)
CLASS_SHARES: tuple[float, ...] = tuple(SHAPES.values())


@dataclass(frozen=True)
class Scenes:
    """Images and their truth.

    Attributes:
        images: uint8 (N, 3, S, S), RGB.
        masks: uint8 (N, S, S), 0 is background and k + 1 stands for ``CLASSES[k]``.
        instances: uint8 (N, S, S), 0 is background, 1 to M are the visible objects, back to front.
        instance_classes: int64 (N, MAX_OBJECTS), index into `CLASSES` of instance j + 1, or -1 if
            there is none.
        labels: int64 (N,), index into `CLASSES` of the object with the largest visible area.
    """

    images: Tensor
    masks: Tensor
    instances: Tensor
    instance_classes: Tensor
    labels: Tensor


def generate_scenes(count: int, image_size: int = 64, seed: int = 0) -> Scenes:
    """Draw the scenes 0 to `count` - 1 of a seed.

    Args:
        count: N, at least 1.
        image_size: side S in pixels, from 32 to 256.
        seed: 0 or more.
    """
    if count < 1:
        raise ValueError(f"count={count} scenes cannot be drawn: give at least 1")
    if not 32 <= image_size <= 256:
        raise ValueError(f"image_size={image_size} is out of range: give 32 to 256 pixels")
    if seed < 0:
        raise ValueError(f"seed={seed} is negative: give 0 or more")
    scenes = Scenes(
        images=torch.empty((count, 3, image_size, image_size), dtype=torch.uint8),
        masks=torch.empty((count, image_size, image_size), dtype=torch.uint8),
        instances=torch.empty((count, image_size, image_size), dtype=torch.uint8),
        instance_classes=torch.empty((count, MAX_OBJECTS), dtype=torch.int64),
        labels=torch.empty(count, dtype=torch.int64),
    )
    arrays = [getattr(scenes, field.name).numpy() for field in fields(Scenes)]
    step = CHUNK_PIXELS // image_size**2

    def draw(start: int) -> None:
        chunk = slice(start, min(start + step, count))
        values = _draw(_Random(seed, range(chunk.start, chunk.stop)), image_size)
        for array, value in zip(arrays, values, strict=True):
            array[chunk] = value

    with ThreadPoolExecutor(WORKERS) as pool:  # numpy lets other threads run while it computes
        list(pool.map(draw, range(0, count, step)))
    return scenes


class _Random:
    """Random numbers of N scenes, each from a stream of its own so that it knows no neighbours."""

    def __init__(self, seed: int, indices: range) -> None:
        seeds = (np.random.SeedSequence(seed, spawn_key=(index,)) for index in indices)
        self.streams = [np.random.Generator(np.random.SFC64(s)) for s in seeds]

    def uniform(self, low: float, high: float, *shape: int) -> Floats:
        """float32 (N, *shape) in [low, high)."""
        values = np.stack([stream.random(shape, np.float32) for stream in self.streams])
        return low + (high - low) * values

    def choice(self, shares: tuple[float, ...], *shape: int) -> Ints:
        """int64 (N, *shape), index i with probability ``shares[i]``."""
        bounds = np.cumsum(shares, dtype=np.float32)[:-1]
        return np.searchsorted(bounds, self.uniform(0, 1, *shape), side="right")

    def normal(self, *shape: int) -> Floats:
        """float32 (N, *shape) of mean 0 and deviation 1."""
        return np.stack([stream.standard_normal(shape, np.float32) for stream in self.streams])

    def grain(self, *shape: int) -> Floats:
        """As `normal`, but even instead of normal, in 256 steps, and six times as fast."""
        values = np.stack([stream.integers(0, 256, shape, np.uint8) for stream in self.streams])
        return (values - np.float32(127.5)) / np.float32(73.9)


def _draw(random: _Random, size: int) -> tuple[Bytes, Bytes, Bytes, Ints, Ints]:
    """The fields of :class:`Scenes`. Objects are in painter's order everywhere: back to front."""
    radius, centre, present = _place(random)
    classes = np.where(present, random.choice(CLASS_SHARES, MAX_OBJECTS), -1)
    alpha = _cover(random, classes, radius, centre, size)
    solid = alpha >= 0.5
    _, area = _frontmost(solid, np.ones_like(classes).cumsum(1))
    present &= area >= MIN_VISIBLE * size**2
    # What is left out can only uncover the others, so each that stays keeps its least area.
    instances, area = _frontmost(solid, present * present.cumsum(1))
    visible_first = np.argsort(~present, axis=1, kind="stable")
    instance_classes = np.take_along_axis(np.where(present, classes, -1), visible_first, 1)

    rows = np.arange(len(classes))
    labels = instance_classes[rows, area.argmax(1)]
    mask_values = np.pad(instance_classes + 1, ((0, 0), (1, 0))).astype(np.uint8)
    masks = mask_values[rows[:, None, None], instances]
    images = _paint(random, alpha, present)
    images += random.uniform(*NOISE, 1, 1, 1) * random.grain(3, size, size)
    pixels = np.clip(images * 255 + 0.5, 0, 255).astype(np.uint8)
    return pixels, masks, instances, instance_classes, labels


def _frontmost(solid: Bools, numbers: Ints) -> tuple[Bytes, Ints]:
    """The number (N, S, S) of the object seen at each pixel, or 0, and the area of each (N, K).

    Args:
        solid: bool (N, K, S, S), where objects are.
        numbers: int64 (N, K), 0 for what is left out, else growing from back to front up to K.
    """
    seen = (solid * numbers.astype(np.uint8)[:, :, None, None]).max(1)
    return seen, np.stack([(seen == k).sum((1, 2)) for k in range(1, MAX_OBJECTS + 1)], 1)


def _place(random: _Random) -> tuple[Floats, Floats, Bools]:
    """Radius (N, K) of the disk of equal area, centre (N, K, 2) and presence (N, K) of objects."""
    shares = random.uniform(*OTHER_AREA, MAX_OBJECTS)
    shares[:, 0] = 1  # the main object
    radius = np.sqrt(random.uniform(*MAIN_AREA, 1) * shares / np.float32(np.pi))
    margin = 0.8 * radius[:, :, None, None]  # objects may stick out a little
    spots = margin + (1 - 2 * margin) * random.uniform(0, 1, MAX_OBJECTS, TRIES, 2)
    centre = spots[:, :, 0].copy()
    present = np.arange(MAX_OBJECTS) <= random.choice(COUNT_SHARES, 1)
    rows = np.arange(len(spots))
    for j in range(1, MAX_OBJECTS):
        # Some overlap is wanted, but what would be mostly covered wherever it is tried is left out.
        own, others = radius[:, j, None], radius[:, :j]
        needed = own + others - OVERLAP * np.minimum(own, others)
        offset = spots[:, j, :, None] - centre[:, None, :j]
        distance = _length(offset[..., 0], offset[..., 1])
        fits = np.all((distance >= needed[:, None]) | ~present[:, None, :j], axis=2)
        centre[:, j] = spots[rows, j, fits.argmax(1)]
        present[:, j] &= fits.any(1)
    order = random.uniform(0, 1, MAX_OBJECTS).argsort(1)
    at = rows[:, None], order
    return radius[at], centre[at], present[at]


def _grid(size: int) -> Floats:
    """Centres of pixels, float32 (S,)."""
    return (np.arange(size, dtype=np.float32) + 0.5) / size


def _cover(random: _Random, classes: Ints, radius: Floats, centre: Floats, size: int) -> Floats:
    """How much of each pixel each object would cover alone, float32 (N, K, S, S) from 0 to 1."""
    angle = random.uniform(-ROTATION, ROTATION, MAX_OBJECTS)
    stretch = random.uniform(0.8, 1.25, MAX_OBJECTS)
    alpha = np.zeros((*classes.shape, size, size), np.float32)
    for index, shape in enumerate(SHAPES):
        at = classes == index
        r, s, a = radius[at][:, None], stretch[at][:, None], angle[at][:, None]
        dx, dy = (_grid(size) - centre[at][:, :1]) / r, (_grid(size) - centre[at][:, 1:]) / r
        x = (np.cos(a) * dx / s)[:, None, :] + (np.sin(a) * dy / s)[:, :, None]
        y = (np.cos(a) * dy * s)[:, :, None] - (np.sin(a) * dx * s)[:, None, :]
        alpha[at] = np.clip(0.5 - shape(x, y) * (r * size)[:, :, None], 0, 1)  # edges of one pixel
    return alpha


def _ramp(angle: Floats, steepness: Floats, offset: Floats, grid: Floats) -> Floats:
    """Values that rise in a direction, float32 (N, S, S), from arguments (N,) and a grid (S,)."""
    x = (np.cos(angle) * steepness)[:, None] * grid + offset[:, None]
    y = (np.sin(angle) * steepness)[:, None] * grid
    return x[:, None, :] + y[:, :, None]


def _paint(random: _Random, alpha: Floats, present: Bools) -> Floats:
    """Background and objects under uneven light, float32 (N, 3, S, S) of about 0 to 1."""
    n, _, _, size = alpha.shape
    layers = MAX_OBJECTS + 1  # the background and the objects: each has two colours and a texture
    # An object takes the first colour tried that has enough contrast, else the one with most.
    ground = random.uniform(*GROUND_COLOURS, 2, 1, 3)
    tries = random.uniform(*OBJECT_COLOURS, MAX_OBJECTS, TRIES, 3)
    contrast = tries.mean(3) - ground[:, 0].mean(2)[:, :, None]
    best = np.minimum(contrast, CONTRAST).argmax(2)[:, :, None, None]
    first = np.take_along_axis(tries, best, 2)[:, :, 0]
    second = random.uniform(*OBJECT_COLOURS, MAX_OBJECTS, 3)
    colour = np.concatenate((ground[:, 0], first), 1)
    change = np.concatenate((ground[:, 1], second), 1) - colour
    change *= random.uniform(0.1, 0.5, layers, 1)
    # A texture mixes a gradient, stripes or a checker, and smooth noise.
    mix = random.uniform(0, 1, layers, 3) ** 3
    mix /= mix.sum(2, keepdims=True)
    slope, angle = random.uniform(0, 2 * np.pi, 2, layers).swapaxes(0, 1)
    frequency = 2 * np.pi / random.uniform(*PERIOD, layers)
    phase = random.uniform(0, 2 * np.pi, layers, 2)
    checker = random.uniform(0, 1, layers) < 0.5
    knots = random.normal(layers, KNOTS, KNOTS)
    grid, zero = _grid(size), np.zeros(n, np.float32)
    basis = np.exp(-(((KNOTS - 1) * grid[:, None] - np.arange(KNOTS, dtype=np.float32)) ** 2))
    basis /= np.sqrt((basis**2).sum(1, keepdims=True))  # noise of unit variance everywhere

    def texture(rows: Ints, layer: int) -> Floats:
        at = rows, layer
        gradient, waves, noise = (mix[at][:, k] for k in range(3))
        stripes = np.sin(_ramp(angle[at], frequency[at], phase[at][:, 0], grid))
        twice = rows[checker[at]], layer
        across = angle[twice] + np.float32(np.pi / 2)
        stripes[checker[at]] *= np.sin(_ramp(across, frequency[twice], phase[twice][:, 1], grid))
        level = _ramp(slope[at], gradient, zero[rows], grid)
        level += waves[:, None, None] * np.clip(3 * stripes, -1, 1)  # steep, but not stepped
        level += noise[:, None, None] * (basis @ knots[at] @ basis.T)
        values = change[at][:, :, None, None] * level[:, None]
        values += colour[at][:, :, None, None]
        return values

    images = texture(np.arange(n), 0)
    for layer in range(1, layers):
        rows = np.flatnonzero(present[:, layer - 1])
        below = images[rows]
        images[rows] = below + alpha[rows, layer - 1, None] * (texture(rows, layer) - below)
    brighter = random.uniform(0, LIGHT)
    images *= 1 + _ramp(random.uniform(0, 2 * np.pi), brighter, zero, grid - 0.5)[:, None]
    return images
