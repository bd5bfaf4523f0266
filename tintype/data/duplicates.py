"""Pictures that are nearly the same: scaled, compressed again, slightly changed copies.

A signature is a perceptual hash (ImageHash's phash: signs of the lowest frequencies of the grey picture) and a picture
of 4 x 4 pixels. The hash alone takes all blank pictures, and the same shape in other colours, for copies; the small
picture tells them apart. Mirrored and cut copies are not found.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tintype.data.samples import Sample

HASH, SMALL = 8, 48  # bytes of a signature
FURTHEST = 8 * HASH // 2 - 1  # bits that hashes of copies may differ by: those of others differ by half of them
ALIKE = 10.0  # grey levels that two small pictures of copies may differ by, in the mean
SIGNATURE = np.zeros(HASH + SMALL, np.uint8)

Signatures = NDArray[np.uint8]  # N 56
Pairs = NDArray[np.int64]  # M 2


def signatures(samples: Sequence[Sample]) -> Signatures:
    """Of each picture. Raises `ValueError` where the package ImageHash is not installed."""
    try:
        from imagehash import phash
    except ImportError as error:
        raise ValueError(
            "near duplicates need the package ImageHash: pip install --editable '.[train]' in the clone"
        ) from error
    found: list[NDArray[np.uint8]] = []
    for sample in samples:
        assert sample.picture is not None  # prepared samples have one
        image = Image.fromarray(sample.picture)
        small = np.asarray(image.resize((4, 4), Image.Resampling.BOX)).reshape(-1)
        found.append(np.concatenate([np.packbits(np.asarray(phash(image).hash, dtype=bool)), small]))
    return np.stack(found)


def copies(signed: Signatures, preference: NDArray[np.int64], *, distance: int) -> NDArray[np.int64]:
    """N: for each picture the one that is kept in its stead, or -1 where it is kept itself.

    Of pictures with hashes `distance` bits or less apart that one is kept which comes first in `preference`, an order
    of all. Whatever is not kept is near one that is. Hashes are compared where one of `distance` + 1 parts of them is
    equal, which is so for all that are near (the pigeonhole principle), not each with each.
    """
    if not 0 <= distance <= FURTHEST:
        raise ValueError(f"duplicates {distance}: expected 0 to {FURTHEST} bits of {8 * HASH}")
    rank = np.empty(len(signed), np.int64)
    rank[preference] = np.arange(len(signed))
    instead = np.full(len(signed), -1)
    _same_hash(signed, preference, instead)
    left = np.flatnonzero(instead < 0)
    pairs = [pair for found in _near(signed[left], distance) for pair in left[found].tolist()]
    first_rank = rank[np.array(pairs, dtype=np.int64).reshape(-1, 2)]
    first_rank.sort(axis=1)
    for kept, other in sorted({(one, two) for one, two in first_rank.tolist()}):
        if instead[preference[kept]] < 0 and instead[preference[other]] < 0:
            instead[preference[other]] = preference[kept]
    return _ends(instead)


def _ends(instead: NDArray[np.int64]) -> NDArray[np.int64]:
    """Whoever stands in for a picture may have been replaced itself."""
    while len(moved := np.flatnonzero((instead >= 0) & (instead[instead] >= 0))):
        instead[moved] = instead[instead[moved]]
    return instead


def _same_hash(signed: Signatures, preference: NDArray[np.int64], instead: NDArray[np.int64]) -> None:
    """Those of one hash: each is compared to the ones kept before it, mostly one, so that a thousand blank pictures
    take no million comparisons."""
    kept: dict[bytes, list[int]] = {}
    for number in preference.tolist():
        same = kept.setdefault(signed[number, :HASH].tobytes(), [])
        alike = np.flatnonzero(_alike(signed[same], signed[number][None])) if same else []
        if len(alike):
            instead[number] = same[alike[0]]
        else:
            same.append(number)


def _near(signed: Signatures, distance: int) -> Iterator[Pairs]:
    """Pairs whose hashes are near and whose small pictures are alike; some more than once."""
    bits = np.unpackbits(signed[:, :HASH], axis=1)
    for part in np.array_split(np.arange(8 * HASH), distance + 1):
        keys = bits[:, part] @ (1 << np.arange(len(part), dtype=np.uint64))
        order = np.argsort(keys, kind="stable")
        for apart in range(1, len(order)):
            one, two = order[:-apart], order[apart:]
            equal = keys[one] == keys[two]
            if not equal.any():
                break
            one, two = one[equal], two[equal]
            near = (bits[one] != bits[two]).sum(axis=1) <= distance
            one, two = one[near], two[near]
            yield np.stack([one, two], axis=1)[_alike(signed[one], signed[two])]


def _alike(one: Signatures, two: Signatures) -> NDArray[np.bool_]:
    difference = one[:, HASH:].astype(np.int16) - two[:, HASH:]
    return np.abs(difference).mean(axis=1) <= ALIKE
