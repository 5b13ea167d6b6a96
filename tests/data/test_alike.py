"""Images that look alike are found, in whatever order they stand."""

import torch
from torch.nn.functional import interpolate

from cv_lab.data.alike import ALIKE, most_alike, thumbnails
from cv_lab.data.in_memory import InMemoryImages


def images(pixels: torch.Tensor) -> InMemoryImages:
    return InMemoryImages(pixels.clamp(0, 255).to(torch.uint8), torch.zeros(len(pixels), dtype=torch.long), ("one",))


def scenes(count: int, seed: int) -> torch.Tensor:
    coarse = torch.rand(count, 3, 6, 6, generator=torch.Generator().manual_seed(seed)) * 180 + 20
    return interpolate(coarse, (48, 48), mode="bilinear")


def test_scaled_brighter_and_grey_copies_are_found() -> None:
    train, others = scenes(600, 0), scenes(300, 1)
    others[7] = train[555] + 12
    others[299] = train[3].mean(0)
    others[150] = train[20] * 0.8
    small = interpolate(others, (32, 32), mode="bilinear")
    found = most_alike(thumbnails(images(train)), thumbnails(images(small)))
    assert found == [(555, 7), (20, 150), (3, 299)]


def test_the_pairs_are_those_of_comparing_all_with_all() -> None:
    """Vectors near a sphere's pole, many of which are alike."""
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(900, 64, generator=generator) * 0.017
    vectors[:, 0] += 1
    vectors = torch.nn.functional.normalize(vectors)
    one, other = vectors[:600], vectors[600:]
    alike = other @ one.T
    expected = [(int(row.argmax()), j) for j, row in enumerate(alike) if row.max() >= ALIKE]
    assert 20 < len(expected) < 300
    assert most_alike(one, other) == expected


def test_images_of_one_colour_are_like_none() -> None:
    plain = images(torch.full((4, 3, 16, 16), 90.0))
    assert most_alike(thumbnails(plain), thumbnails(plain)) == []
