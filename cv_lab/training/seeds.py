"""Seeding of the generators that a trial draws from."""

import random

import numpy as np
import torch


def seed_all(seed: int, device: torch.device) -> None:
    """Seed the generators of Python, NumPy and torch, and that of `device`, but of no other device."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    seed_torch(seed, device)


def seed_torch(seed: int, device: torch.device) -> None:
    """Seed torch's generators. With the CPU as `device`, GPUs are left alone, unlike by `torch.manual_seed`."""
    if device.type == "cpu":
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)
