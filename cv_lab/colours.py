"""Colours that tell classes and settings apart."""

from functools import cache

import numpy as np
from numpy.typing import NDArray


def palette(n: int) -> NDArray[np.uint8]:
    """Return colours for `n` classes, uint8 (n, 3), for white and for black pages.

    Colour i is the same for every `n`. The first six are those of Okabe and Ito (2008), which
    colour-blind readers tell apart; each next one is the candidate farthest from all before it in
    the OKLab space (Ottosson, 2020).
    """
    if not 0 <= n <= 256:
        raise ValueError(f"palette({n}): give 0 to 256, classes of an 8-bit mask")
    return _palette()[:n].copy()


@cache
def _palette() -> NDArray[np.uint8]:
    first = np.array([[0, 114, 178], [230, 159, 0], [0, 158, 115], [204, 121, 167], [213, 94, 0], [86, 180, 233]])
    levels = np.arange(0, 256, 15)
    rgb = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1).reshape(-1, 3)
    lab = _oklab(rgb)
    lightness, chroma = lab[:, 0], np.hypot(lab[:, 1], lab[:, 2])
    usable = (lightness > 0.45) & (lightness < 0.82) & (chroma > 0.06) & (chroma < 0.22)
    rgb, lab = rgb[usable], lab[usable]
    colors = list(first)
    distance = ((lab[:, None] - _oklab(first)) ** 2).sum(-1).min(1)
    while len(colors) < 256:
        farthest = distance.argmax()
        colors.append(rgb[farthest])
        distance = np.minimum(distance, ((lab - lab[farthest]) ** 2).sum(-1))
    return np.array(colors, dtype=np.uint8)


def _oklab(rgb: NDArray[np.integer]) -> NDArray[np.float64]:
    """Convert sRGB (N, 3) in 0..255 to OKLab, in which equal distances look equally different."""
    srgb = rgb / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    cones = linear @ [
        [0.4122214708, 0.2119034982, 0.0883024619],
        [0.5363325363, 0.6806995451, 0.2817188376],
        [0.0514459929, 0.1073969566, 0.6299787005],
    ]
    lab: NDArray[np.float64] = np.cbrt(cones) @ [
        [0.2104542553, 1.9779984951, 0.0259040371],
        [0.7936177850, -2.4285922050, 0.7827717662],
        [-0.0040720468, 0.4505937099, -0.8086757660],
    ]
    return lab
