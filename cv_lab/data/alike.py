"""Images that look alike, such as copies in other formats and at other sizes, or neighbouring frames of a video."""

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from cv_lab.data.in_memory import InMemoryImages

SIDE = 8  # of the grey thumbnails that are compared
ALIKE = 0.99  # correlation of thumbnails of images that look alike
CHUNK = 256  # images that are read, or compared, at once


def thumbnails(images: InMemoryImages) -> Tensor:
    """Grey thumbnails of images, less their mean and of length 1, float32 (N, 64); 0 for images of one colour."""
    parts = []
    for rows in torch.arange(len(images)).split(CHUNK):
        grey = images.images[rows].float().mean(1, keepdim=True)
        small = interpolate(grey, (SIDE, SIDE), mode="area").flatten(1)
        parts.append(normalize(small - small.mean(1, keepdim=True), eps=1.0))
    return torch.cat(parts)


def most_alike(one: Tensor, other: Tensor) -> list[tuple[int, int]]:
    """For each image of `other` that looks like one of `one`, the numbers of the most similar of these and its own.

    Vectors whose distance is at most d differ by at most d along any direction. Both sets are therefore sorted along
    the direction of the widest spread, and an image is compared with those alone that are near it there.

    Args:
        one: thumbnails (N, 64).
        other: thumbnails (M, 64).
    """
    direction = torch.linalg.eigh(one.T @ one).eigenvectors[:, -1]
    places, order = (one @ direction).sort()
    reach = float(np.sqrt(2 - 2 * ALIKE))
    found: list[tuple[int, int]] = []
    for numbers in (other @ direction).argsort().split(CHUNK):
        around = other[numbers] @ direction
        begin, end = torch.searchsorted(places, torch.stack((around[0] - reach, around[-1] + reach))).tolist()
        if begin == end:
            continue
        best, nearest = (other[numbers] @ one[order[begin:end]].T).max(1)
        alike = (best >= ALIKE).nonzero().flatten()
        found += zip(order[begin:end][nearest[alike]].tolist(), numbers[alike].tolist(), strict=True)
    return sorted(found, key=lambda pair: pair[1])
