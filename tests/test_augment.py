"""Batched augmentation draws what torchvision draws, for each sample by itself."""

import torch
from torchvision.transforms import v2

from cv_lab.augment import Mix, PerImage, RandomCrop, RandomHorizontalFlip


def coordinates(count: int, size: int = 8) -> torch.Tensor:
    """`count` images, uint8 (count, 3, size, size), whose pixels tell their row and column, counted from 1."""
    rows, columns = torch.meshgrid(torch.arange(1, size + 1), torch.arange(1, size + 1), indexing="ij")
    return torch.stack([rows, columns, rows * 0]).to(torch.uint8).expand(count, 3, size, size).clone()


def offsets(images: torch.Tensor, padding: int) -> torch.Tensor:
    """The corner (y, x) of each crop, int (N, 2), read from a pixel that no crop can lose."""
    centre = images.shape[-1] // 2
    return images[:, :2, centre, centre].long() - 1 - centre + padding


def test_crop_offsets_have_torchvisions_distribution() -> None:
    torch.manual_seed(0)
    count, size, padding = 20_000, 8, 1
    ours = offsets(RandomCrop(padding / size)({"image": coordinates(count)})["image"], padding)
    reference = v2.RandomCrop(size, padding=padding)
    theirs = offsets(torch.stack([reference(image) for image in coordinates(4_000)]), padding)
    for corners in (ours, theirs):
        shares = torch.bincount(corners[:, 0] * 3 + corners[:, 1], minlength=9) / len(corners)
        assert shares.shape == (9,)
        assert torch.all((shares - 1 / 9).abs() < 0.02)  # even over all nine corners


def test_a_crop_is_the_window_that_torchvision_cuts() -> None:
    torch.manual_seed(0)
    images = torch.randint(0, 256, (50, 3, 16, 16), dtype=torch.uint8)
    cropped = RandomCrop(0.25)({"image": images})["image"]
    padded = v2.functional.pad(images, [4, 4, 4, 4])
    for crop, image in zip(cropped, padded, strict=True):
        windows = [image[:, y : y + 16, x : x + 16] for y in range(9) for x in range(9)]
        assert any(torch.equal(crop, window) for window in windows)


def test_flips_are_even_and_differ_within_a_batch() -> None:
    torch.manual_seed(0)
    images = coordinates(10_000)
    flipped = RandomHorizontalFlip()({"image": images})["image"]
    mirrored = flipped[:, 1, 0, 0] == images.shape[-1]
    assert 0.48 < mirrored.float().mean() < 0.52
    assert torch.equal(flipped[mirrored], images[mirrored].flip(-1))
    assert torch.equal(flipped[~mirrored], images[~mirrored])


def test_per_image_draws_for_every_image() -> None:
    torch.manual_seed(0)
    batch = {"image": coordinates(64)}
    changed = PerImage(v2.RandomHorizontalFlip())(batch)["image"]
    assert len(changed.flatten(1).unique(dim=0)) == 2


def test_mix_keeps_label_mass_and_class() -> None:
    torch.manual_seed(0)
    mix = Mix()
    mix.num_classes = 5
    labels = torch.arange(10) % 5
    for _ in range(10):
        batch = mix({"image": coordinates(10), "label": labels})
        assert torch.allclose(batch["soft_label"].sum(1), torch.ones(10))
        assert torch.equal(batch["label"], labels)
