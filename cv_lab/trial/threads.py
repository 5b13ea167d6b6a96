"""A trial's share of the processor."""

import torch


def share_threads(trials: int) -> None:
    """Use one part of torch's threads of so many `trials` that run at a time."""
    torch.set_num_threads(max(1, torch.get_num_threads() // trials))
