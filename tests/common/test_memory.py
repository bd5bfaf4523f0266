"""Freed memory stays with the process while a model works, and no longer."""

import sys
from pathlib import Path
from resource import RUSAGE_SELF, getrusage

import pytest
import torch

from tintype.common.memory import _glibc, kept_memory

SIZE = 64 * 2**20  # bytes: above every threshold of glibc
pytestmark = pytest.mark.skipif(_glibc() is None, reason=f"glibc's allocator only, not that of {sys.platform}")


def faults() -> int:
    """Pages that the system had to provide for one large tensor."""
    before = getrusage(RUSAGE_SELF).ru_minflt
    torch.ones(SIZE, dtype=torch.uint8)
    return getrusage(RUSAGE_SELF).ru_minflt - before


def resident() -> int:
    """Bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_a_second_tensor_lies_where_the_first_lay() -> None:
    faults()
    anew = faults()
    assert anew >= SIZE // 2**21  # given back and asked for again, in pages of 4 KiB or of 2 MiB
    with kept_memory():
        faults()
        with kept_memory():
            assert faults() < anew / 4
        assert faults() < anew / 4


def test_at_the_end_it_is_given_back() -> None:
    with kept_memory():
        faults()
        inside = resident()
    assert resident() < inside - SIZE // 2
    faults()
    assert faults() >= SIZE // 2**21
