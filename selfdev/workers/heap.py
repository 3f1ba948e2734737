"""The C library's heap, which gives freed blocks back to the system and asks for zeroed pages anew."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc, malloc.h
LARGE = 32 * 2**20  # bytes; glibc takes no more for blocks that come from the heap
KEPT = 2**30
TUNABLES, LARGE_PAGES = "GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"  # noted when a process starts, not later


def keep_freed_memory() -> None:
    """Let this process keep freed blocks of up to 32 MiB, 1 GiB in all; without glibc do nothing.

    Every temporary tensor of a forward pass is such a block: page faults cost a tenth of scoring and a
    quarter of writing programs with small models.
    """
    with contextlib.suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, LARGE)
        mallopt(M_TRIM_THRESHOLD, KEPT)


def with_large_pages() -> None:
    """Begin this process anew with the system's large pages for memory that is asked for, unless it has them.
    Without glibc the second beginning changes nothing."""
    given = os.environ.get(TUNABLES, "")
    if sys.platform == "linux" and "glibc.malloc.hugetlb" not in given:
        os.environ[TUNABLES] = ":".join(filter(None, (given, LARGE_PAGES)))
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
