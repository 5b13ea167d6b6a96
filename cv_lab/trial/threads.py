"""A trial's share of the processor."""

import torch


def share_threads(trials: int) -> None:
    """Use 1 / `trials` of torch's threads, where that many trials run at the same time."""
    torch.set_num_threads(max(1, torch.get_num_threads() // trials))
