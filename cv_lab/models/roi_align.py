"""RoIAlign (He et al., 2017) for CPUs, in a third of the time that torchvision's takes there."""

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor
from torchvision.ops.poolers import LevelMapper


class MultiScaleRoIAlign(torchvision.ops.MultiScaleRoIAlign):
    """Compute what its base computes; on a GPU, and for ONNX, which has an operator of its own, call its base.

    A cell of a box is the mean of a few points, each interpolated from four pixels: a weighted sum of the features at
    some pixels, which an embedding bag computes. torchvision's CPU kernel accumulates gradients one value at a time.

    Args:
        featmap_names: of the features to pool from, from the finest on.
        output_size: cells along each side of a box.
        sampling_ratio: points along each side of a cell.
    """

    def __init__(self, featmap_names: list[str], output_size: int, sampling_ratio: int) -> None:
        super().__init__(featmap_names, output_size, sampling_ratio)

    def forward(self, x: dict[str, Tensor], boxes: list[Tensor], image_shapes: list[tuple[int, int]]) -> Tensor:
        """Pool features, float (R, C, S, S), in the R boxes of all images.

        Args:
            x: float (N, C, H, W) by name.
            boxes: N tensors, float (M, 4), x and y of two corners in pixels of the images.
            image_shapes: height and width of the images, which are all of one size.
        """
        maps = [x[name] for name in self.featmap_names]
        if maps[0].is_cuda or torch.jit.is_tracing():
            return super().forward(x, boxes, image_shapes)
        scales = [2.0 ** round(torch.tensor(value.shape[-1] / image_shapes[0][1]).log2().item()) for value in maps]
        finest, coarsest = (round(-torch.tensor(scale).log2().item()) for scale in (scales[0], scales[-1]))
        mapper = LevelMapper(finest, coarsest, self.canonical_scale, self.canonical_level)
        level = mapper(boxes) if len(maps) > 1 else torch.zeros(sum(map(len, boxes)), dtype=torch.long)
        every = torch.cat(boxes)
        image = torch.repeat_interleave(torch.arange(len(boxes)), torch.tensor([len(some) for some in boxes]))
        channels, (cells, _) = maps[0].shape[1], self.output_size
        pooled = maps[0].new_zeros(len(every), cells * cells, channels)
        for number, (value, scale) in enumerate(zip(maps, scales, strict=True)):
            at = torch.nonzero(level == number).flatten()
            if len(at):
                pooled = pooled.index_copy(
                    0, at, _pool(value, every[at] * scale, image[at], cells, self.sampling_ratio)
                )
        return pooled.transpose(1, 2).reshape(-1, channels, cells, cells)


def _pool(value: Tensor, boxes: Tensor, image: Tensor, cells: int, points: int) -> Tensor:
    """Features (R, cells * cells, C) of boxes (R, 4), in pixels of `value` (N, C, H, W), of the images (R,)."""
    n, channels, height, width = value.shape
    x, by_x = _neighbours(boxes[:, 0], boxes[:, 2], width, cells, points)
    y, by_y = _neighbours(boxes[:, 1], boxes[:, 3], height, cells, points)
    # Pixels of a cell are all pairs of its rows and columns: (R, cells in y, cells in x, rows, columns).
    first = (image * height * width)[:, None, None, None, None]
    rows = y[:, :, None, :, None] * width + x[:, None, :, None, :] + first
    weights = by_y[:, :, None, :, None] * by_x[:, None, :, None, :]
    table = value.permute(0, 2, 3, 1).reshape(n * height * width, channels)
    bags = cells * cells * len(boxes)
    sums = F.embedding_bag(rows.view(bags, -1), table, per_sample_weights=weights.view(bags, -1), mode="sum")
    return sums.view(len(boxes), cells * cells, channels)


def _neighbours(start: Tensor, end: Tensor, length: int, cells: int, points: int) -> tuple[Tensor, Tensor]:
    """For each cell along one axis of `length` pixels, the pixels beside its points and their weights.

    Returns:
        int64 and float (R, cells, 2 * points).
    """
    size = (end - start).clamp(min=1)
    steps = (torch.arange(cells * points) + 0.5) / (cells * points)
    at = start[:, None] + size[:, None] * steps
    seen = ((at >= -1) & (at <= length)) / points
    at = at.clamp(0, length - 1)
    low = at.floor()
    high = (low + 1).clamp(max=length - 1)
    part = at - low
    pixels = torch.stack([low, high], -1).long()
    weights = torch.stack([(1 - part) * seen, part * seen], -1)
    return pixels.view(len(start), cells, -1), weights.view(len(start), cells, -1)
