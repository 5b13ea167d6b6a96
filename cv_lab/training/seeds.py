"""Seeding of the generators that a trial draws from."""

import random

import numpy as np
import torch


def seed_all(seed: int, device: torch.device) -> None:
    """Seed Python's, NumPy's and torch's generators; of devices only `device`'s."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    seed_torch(seed, device)


def seed_torch(seed: int, device: torch.device) -> None:
    """Seed torch's generators; with the CPU as `device` no GPU is asked, which `torch.manual_seed` does."""
    if device.type == "cpu":
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)
