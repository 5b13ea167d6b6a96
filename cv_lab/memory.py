"""How a trial's process asks the system for memory."""

import ctypes
import platform

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h
LARGEST = 2**31 - 1  # bytes


def keep_large_blocks() -> bool:
    """Let the C library keep large blocks for the next tensor; says whether it does.

    glibc gives blocks above 32 MB back to the system when they are freed, and gets each new one page by page, zeroed: a
    batch of 64 photographs as float32 is normalised in 17 ms so, and in 4 ms in memory that is at hand.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all([mallopt(M_MMAP_MAX, 0), mallopt(M_TRIM_THRESHOLD, LARGEST)])
