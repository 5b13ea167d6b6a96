"""Memory that was freed is at hand for the next tensor."""

import platform
import resource

import pytest
import torch

from cv_lab.data.memory import keep_large_blocks


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no such setting")
def test_a_large_tensor_gets_the_memory_of_the_last_one() -> None:
    assert keep_large_blocks()
    for _ in range(20):  # until there is room in the heap
        torch.ones(10_000_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.ones(10_000_000)  # 40 MB, which are 10,000 pages
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 10_000
