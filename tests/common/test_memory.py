"""Freed memory stays with the process while a model works, and no longer."""

import subprocess
import sys

import pytest

from tintype.common.memory import _glibc

PROGRAM = """
from resource import RUSAGE_SELF, getrusage
from pathlib import Path
import torch
from tintype.common.memory import kept_memory

def faults(size=48):  # pages that the system had to provide for one large tensor
    before = getrusage(RUSAGE_SELF).ru_minflt
    torch.ones(size * 2**20, dtype=torch.uint8)
    return getrusage(RUSAGE_SELF).ru_minflt - before

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

faults()
anew = faults()
with kept_memory():
    faults(64)  # a little more: glibc may not find aligned room in a freed block of just the same size
    with kept_memory():
        nested = faults()
    inside = resident()
after = inside - resident()
faults(96)  # more than any block that the heap may have left, which would be taken as it is
print(anew, nested, faults(96), after)
"""


@pytest.mark.skipif(_glibc() is None, reason=f"glibc's allocator only, not that of {sys.platform}")
def test_a_second_tensor_lies_where_the_first_lay_until_the_end() -> None:
    """In a process of its own: what other tests left in the heap matters here."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    anew, nested, again, after = map(int, done.stdout.split())
    assert anew >= 24  # given back and asked for again, in pages of 4 KiB or of 2 MiB
    assert nested < anew / 4
    assert again >= 24
    assert after > 32 * 2**20  # bytes given back
