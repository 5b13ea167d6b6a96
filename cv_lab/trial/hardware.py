"""The devices that a trial sees and computes on."""

import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import torch

VISIBLE = "CUDA_VISIBLE_DEVICES"


@contextmanager
def visible_gpus(accelerator: str) -> Iterator[None]:
    """Hide all GPUs from a trial whose Lightning `accelerator` is "cpu".

    Lightning saves the random state of every GPU that it sees, and setting up CUDA for that takes memory on each.
    """
    before = os.environ.get(VISIBLE)
    if accelerator == "cpu":
        os.environ[VISIBLE] = ""
    try:
        yield
    finally:
        os.environ.pop(VISIBLE, None)
        if before is not None:
            os.environ[VISIBLE] = before


def resolve_precision(precision: str, accelerator: str) -> str:
    """Return `precision`, or for "auto" the fastest one that Lightning's `accelerator` computes natively."""
    if precision != "auto":
        return precision
    if accelerator != "cpu" and torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"
    # Without these instructions bfloat16 is emulated, ten times slower than float32.
    return "bf16-mixed" if torch.cpu._is_avx512_bf16_supported() else "32-true"


def device_name(device: torch.device) -> str:
    """Return the name of a GPU, or of the processor with the number of threads in use."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    models = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    name = models[0].partition(":")[2].strip() if models else platform.processor() or platform.machine()
    return f"{name}, {torch.get_num_threads()} threads"


def peak_memory_mb(device: torch.device) -> float:
    """Return the highest memory of this process so far in MB: on `device` if it is a GPU, else in main memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    try:
        import resource
    except ImportError:  # on Windows
        memory = psutil.Process().memory_info()
        return float(getattr(memory, "peak_wset", memory.rss)) / 1e6
    # In bytes on macOS, in kilobytes elsewhere.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
