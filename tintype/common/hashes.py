"""Which weights a model has, as a short hash."""

import hashlib
from collections.abc import Sequence
from pathlib import Path


def digest(paths: Sequence[Path]) -> str:
    """Ten hexadecimal digits: of one file the beginning of its SHA-256, as A1111 shows it; of several, of theirs."""
    hashes: list[str] = []
    for path in paths:
        with path.open("rb") as file:
            hashes.append(hashlib.file_digest(file, "sha256").hexdigest())
    whole = hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()
    return whole[:10]
