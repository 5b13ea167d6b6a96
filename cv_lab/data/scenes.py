"""Procedural scenes: textured shapes before a textured background, with exact labels, masks and instances.

Scene `i` is a function of the seed, `i` and the image size alone. Its random numbers do not even depend on the image
size, so that a larger picture shows the same scene in more detail. Geometry lives in unit coordinates: x to the right
and y downwards, both from 0 to 1.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

MAX_OBJECTS = 4
COUNT_SHARES = (0.15, 0.30, 0.30, 0.25)  # of scenes with 1, 2, 3 and 4 objects before crowded ones are left out
MAIN_AREA = (0.09, 0.34)  # of the picture; the main object's
OTHER_AREA = (0.15, 0.45)  # of the main object's, which so stays the largest whatever covers it
OVERLAP = 0.7  # how deep, in radii of the smaller one, two objects may overlap
MIN_VISIBLE = 1 / 256  # of the picture: an object with less left to see is not drawn
COLOURS = (0.05, 0.95)  # of red, green and blue
PERIOD = (0.1, 0.5)  # of stripes and checkers
LIGHT = 0.45  # how much brighter one side may be than the other
CONTRAST = 0.45  # least distance, in the unit cube of RGB, between an object's colour and the background's
NOISE = (0.01, 0.07)  # standard deviation of pixels, of which 1 is the range
TRIES = 8  # places and colours drawn for an object, of which the first fitting one is taken
KNOTS = 8  # per side, of the grid that smooth noise is interpolated from
CHUNK_PIXELS = 1 << 17  # that one thread works on at once, which takes about 25 MB
WORKERS = min(4, os.cpu_count() or 1)


def _length(x: Floats, y: Floats) -> Floats:
    return np.sqrt(x * x + y * y)  # np.hypot guards against overflow and takes six times as long


def circle(x: Floats, y: Floats) -> Floats:
    return _length(x, y) - 1


def square(x: Floats, y: Floats) -> Floats:
    return np.maximum(abs(x), abs(y)) - 0.886


def triangle(x: Floats, y: Floats) -> Floats:
    return np.maximum(0.866 * abs(x) + 0.5 * y, -y) - 0.778


def ring(x: Floats, y: Floats) -> Floats:
    return abs(_length(x, y) - 1) - 0.25


def hexagon(x: Floats, y: Floats) -> Floats:
    return np.maximum(0.866 * abs(x) + 0.5 * abs(y), abs(y)) - 0.952


def cross(x: Floats, y: Floats) -> Floats:
    x, y = abs(x), abs(y)
    return np.maximum(np.maximum(x, y) - 1.154, np.minimum(x, y) - 0.415)


def star(x: Floats, y: Floats) -> Floats:
    """Five points: two mirrorings fold all edges into one, whose distance is taken."""
    radius, inner = 1.541, 0.45
    x = abs(x)
    for kx, ky in ((0.809, -0.588), (-0.809, -0.588)):
        fold = 2 * np.maximum(kx * x + ky * y, 0)
        x, y = x - fold * np.float32(kx), y - fold * np.float32(ky)
    x, y = abs(x), y - radius
    edge_x, edge_y = inner * 0.588, inner * 0.809 - 1
    along = np.clip((x * edge_x + y * edge_y) / (edge_x**2 + edge_y**2), 0, radius)
    return _length(x - edge_x * along, y - edge_y * along) * np.sign(y * edge_x - x * edge_y)


def crescent(x: Floats, y: Floats) -> Floats:
    x = x - 0.5  # brings the middle of what remains near the origin
    return np.maximum(_length(x, y) - 1.36, 1.05 - _length(x - 0.74, y))


# Signed distances, negative inside, after Inigo Quilez (https://iquilezles.org/articles/distfunctions2d/); those by
# maxima are exact at the edge, which is all that is drawn. Every shape has the area of the unit disk, so that its size
# does not tell its class. The number is its share among objects: the rarest class is a quarter as frequent as the first.
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
    """Pictures and their truth.

    Attributes:
        images: uint8 (N, 3, S, S), RGB.
        masks: uint8 (N, S, S), 0 is background and k + 1 stands for ``CLASSES[k]``.
        instances: uint8 (N, S, S), 0 is background and 1 to M are the scene's visible objects, the rearmost first.
        instance_classes: int64 (N, MAX_OBJECTS), index into `CLASSES` of instance j + 1, or -1 beyond the last.
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
        seed: not negative.
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
        stop = min(start + step, count)
        for array, values in zip(arrays, _draw_chunk(range(start, stop), image_size, seed), strict=True):
            array[start:stop] = values

    with ThreadPoolExecutor(WORKERS) as pool:  # numpy lets other threads run while it computes
        list(pool.map(draw, range(0, count, step)))
    return scenes


class _Uniform:
    """Hands out the columns of uniform numbers, float32 (N, P) in [0, 1), one after the other."""

    def __init__(self, numbers: Floats) -> None:
        self.numbers, self.used = numbers, 0

    def __call__(self, low: float, high: float, *shape: int) -> Floats:
        """float32 (N, *shape) in [low, high)."""
        columns = self.numbers[:, self.used : self.used + int(np.prod(shape))]
        self.used += columns.shape[1]
        return low + (high - low) * columns.reshape(-1, *shape)

    def choice(self, shares: tuple[float, ...], *shape: int) -> Ints:
        """int64 (N, *shape), index i with probability ``shares[i]``."""
        bounds = np.cumsum(shares, dtype=np.float32)[:-1]
        return np.searchsorted(bounds, self(0, 1, *shape), side="right")


DRAWS = 273


def _draw_chunk(indices: range, size: int, seed: int) -> tuple[NDArray[np.generic], ...]:
    """The fields of :class:`Scenes` for some scenes."""
    n = len(indices)
    numbers = np.empty((n, DRAWS), np.float32)
    knots = np.empty((n, MAX_OBJECTS + 1, KNOTS, KNOTS), np.float32)
    pixel_noise = np.empty((n, 3, size, size), np.uint8)
    for row, index in enumerate(indices):
        generator = np.random.Generator(np.random.SFC64(np.random.SeedSequence(seed, spawn_key=(index,))))
        generator.random(out=numbers[row], dtype=np.float32)
        generator.standard_normal(out=knots[row], dtype=np.float32)
        pixel_noise[row] = generator.integers(0, 256, (3, size, size), np.uint8)  # six times as fast as normal numbers
    uniform = _Uniform(numbers)

    radius, centre, present = _place(uniform)
    classes = uniform.choice(CLASS_SHARES, MAX_OBJECTS)
    alpha = _cover(uniform, classes, radius, centre, present, size)
    order = np.arange(1, MAX_OBJECTS + 1, dtype=np.uint8)
    solid = alpha >= 0.5
    owner = (solid * order[:, None, None]).max(1)  # of each pixel: the last painted object that covers it
    area = (owner[:, None] == order[:, None, None]).sum((2, 3))
    present &= area >= MIN_VISIBLE * size**2
    # Leaving out an object uncovers others, so each of those that stay still has its least area.
    number = np.where(present, present.cumsum(1), 0).astype(np.uint8)
    instances = (solid * number[:, :, None, None]).max(1)
    area = (instances[:, None] == order[:, None, None]).sum((2, 3))

    packed = np.argsort(~present, axis=1, kind="stable")  # visible objects first, in painter's order
    instance_classes = np.where(np.arange(MAX_OBJECTS) < present.sum(1, keepdims=True), _pick(classes, packed), -1)
    rows = np.arange(n)
    labels = instance_classes[rows, area.argmax(1)]
    values = np.pad(instance_classes + 1, ((0, 0), (1, 0))).astype(np.uint8)
    masks = values[rows[:, None, None], instances]

    images = _paint(uniform, knots, alpha, present)
    images += uniform(*NOISE, 1, 1, 1) / 74 * (pixel_noise - np.float32(127.5))  # 74 is a byte's deviation
    assert uniform.used == DRAWS, uniform.used
    return (np.clip(images * 255 + 0.5, 0, 255).astype(np.uint8), masks, instances, instance_classes, labels)


def _pick(values: NDArray[np.generic], index: Ints) -> NDArray[np.generic]:
    """Reorder (N, K) or (N, K, ...) values by int (N, K)."""
    return values[np.arange(len(values))[:, None], index]


def _place(uniform: _Uniform) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Radius (N, K) of the disk of equal area, centre (N, K, 2), and presence (N, K), in painter's order."""
    area = uniform(*MAIN_AREA, 1) * np.pad(uniform(*OTHER_AREA, MAX_OBJECTS - 1), ((0, 0), (1, 0)), constant_values=1)
    radius = np.sqrt(area / np.float32(np.pi))
    margin = 0.8 * radius[:, :, None, None]  # an object may stick out a little
    spots = margin + (1 - 2 * margin) * uniform(0, 1, MAX_OBJECTS, TRIES, 2)
    centre = spots[:, :, 0].copy()
    present = np.arange(MAX_OBJECTS) <= uniform.choice(COUNT_SHARES, 1)
    for j in range(1, MAX_OBJECTS):
        # Some overlap is wanted, but an object that could be mostly covered wherever it is tried is left out.
        smaller = np.minimum(radius[:, j : j + 1], radius[:, :j])
        needed = radius[:, j : j + 1] + radius[:, :j] - OVERLAP * smaller
        offset = spots[:, j, :, None] - centre[:, None, :j]
        fits = ((_length(offset[..., 0], offset[..., 1]) >= needed[:, None]) | ~present[:, None, :j]).all(2)
        centre[:, j] = spots[np.arange(len(spots)), j, fits.argmax(1)]
        present[:, j] &= fits.any(1)
    order = uniform(0, 1, MAX_OBJECTS).argsort(1)
    return _pick(radius, order), _pick(centre, order), _pick(present, order)


def _grid(size: int) -> Floats:
    return (np.arange(size, dtype=np.float32) + 0.5) / size


def _cover(
    uniform: _Uniform, classes: Ints, radius: Floats, centre: Floats, present: NDArray[np.bool_], size: int
) -> Floats:
    """How much of each pixel each object covers, float32 (N, K, S, S) from 0 to 1."""
    angle = uniform(0, 2 * np.pi, MAX_OBJECTS)
    stretch = uniform(0.8, 1.25, MAX_OBJECTS)
    alpha = np.zeros((*classes.shape, size, size), np.float32)
    grid = _grid(size)
    for index, shape in enumerate(SHAPES):
        chosen = present & (classes == index)
        r, s, c = radius[chosen][:, None], stretch[chosen][:, None], centre[chosen]
        cos, sin = np.cos(angle[chosen])[:, None], np.sin(angle[chosen])[:, None]
        dx, dy = (grid - c[:, :1]) / r, (grid - c[:, 1:]) / r  # (M, S) each: coordinates are sums of these
        x = (cos * dx / s)[:, None, :] + (sin * dy / s)[:, :, None]
        y = (-sin * dx * s)[:, None, :] + (cos * dy * s)[:, :, None]
        alpha[chosen] = np.clip(0.5 - shape(x, y) * (r * size)[:, :, None], 0, 1)  # an edge one pixel wide
    return alpha


def _ramp(angle: Floats, steepness: Floats, offset: Floats, grid: Floats) -> Floats:
    """Values that rise from `offset` (M,) in a direction, float32 (M, S, S)."""
    x = (np.cos(angle) * steepness)[:, None] * grid + offset[:, None]
    y = (np.sin(angle) * steepness)[:, None] * grid
    return x[:, None, :] + y[:, :, None]


def _paint(uniform: _Uniform, knots: Floats, alpha: Floats, present: NDArray[np.bool_]) -> Floats:
    """Background and objects in painter's order under uneven light, float32 (N, 3, S, S) around 0 to 1."""
    k, size = knots.shape[1], alpha.shape[-1]
    grid = _grid(size)
    # Colours: entry 0 is the background. A texture runs between two colours, the second one nearer or farther.
    tries = uniform(*COLOURS, k, TRIES, 3)
    apart = np.sqrt(((tries - tries[:, :1, :1]) ** 2).sum(3))
    # The first colour with enough contrast, else the one with most.
    first = np.take_along_axis(tries, np.minimum(apart, CONTRAST).argmax(2)[:, :, None, None], 2)[:, :, 0]
    change = uniform(0.1, 0.5, k, 1) * (uniform(*COLOURS, k, 3) - first)
    # Patterns: a gradient, stripes or a checker of them, and smooth noise, in random proportions.
    angle, slope = uniform(0, 2 * np.pi, k), uniform(0, 2 * np.pi, k)
    frequency = 2 * np.pi / uniform(*PERIOD, k)
    phase = uniform(0, 2 * np.pi, k, 2)
    checker = uniform(0, 1, k) < 0.5
    weights = uniform(0, 1, k, 3) ** 3
    weights /= weights.sum(2, keepdims=True)
    basis = np.exp(-(((grid[:, None] - np.linspace(0, 1, KNOTS, dtype=np.float32)) * (KNOTS - 1)) ** 2))
    basis /= np.sqrt((basis**2).sum(1, keepdims=True))  # noise of unit variance everywhere

    def texture(rows: Ints, slot: int) -> Floats:
        """float32 (M, 3, S, S)."""
        at = rows, slot
        waves = np.sin(_ramp(angle[at], frequency[at], phase[at][:, 0], grid))
        twice = checker[at]
        waves[twice] *= np.sin(_ramp(angle[at] + np.float32(np.pi / 2), frequency[at], phase[at][:, 1], grid)[twice])
        level = _ramp(slope[at], weights[at][:, 0], np.float32(0) * slope[at], grid)
        level += weights[at][:, 1, None, None] * np.clip(3 * waves, -1, 1)  # steep, but not stepped
        level += weights[at][:, 2, None, None] * (basis @ knots[at] @ basis.T)
        colour = change[at][:, :, None, None] * level[:, None]
        colour += first[at][:, :, None, None]
        return colour

    images = texture(np.arange(len(knots)), 0)
    for slot in range(k - 1):
        rows = np.flatnonzero(present[:, slot])
        below = images[rows]
        images[rows] = below + alpha[rows, slot][:, None] * (texture(rows, slot + 1) - below)
    images *= 1 + _ramp(uniform(0, 2 * np.pi), uniform(0, LIGHT), np.zeros(len(knots), np.float32), grid - 0.5)[:, None]
    return images
