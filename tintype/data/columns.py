"""Numbers computed once for each sample of a prepared data set, such as a CLIP score, kept in its folder.

`columns/NAME/00000.safetensors` holds some thousand samples: which are known, and their values. A computation that is
stopped goes on with those that are not known yet, and a later one asks for no more than it lacks.
"""

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from tintype.common.files import load_metadata, load_tensors, save_tensors
from tintype.data.prepared import Prepared
from tintype.data.samples import Sample

log = logging.getLogger(__name__)

COLUMNS = "columns"
TOGETHER = 1024  # samples in a file
AT_ONCE = 64  # samples in memory
READERS = 4

# The values of some samples, one row each
Compute = Callable[[Sequence[Sample]], NDArray[np.generic]]


def column(
    prepared: Prepared,
    numbers: NDArray[np.int64],
    name: str,
    compute: Compute,
    *,
    empty: NDArray[np.generic],
    progress: bool = True,
) -> NDArray[np.generic]:
    """The values of the samples `numbers` (ascending), len(numbers) rows of the shape and type of `empty`.

    `name` is part of a path and must tell what computes them, with which weights. Files that are damaged or of another
    data set are made again.
    """
    found = np.empty((len(numbers), *empty.shape), dtype=empty.dtype)
    starts = np.unique(numbers // TOGETHER) * TOGETHER
    for start in tqdm(starts.tolist(), desc=name, unit="file", dynamic_ncols=True, disable=not progress):
        own = slice(*np.searchsorted(numbers, [start, start + TOGETHER]).tolist())
        found[own] = _some(prepared, numbers[own], name, compute, start=start, empty=empty)
    return found


def _some(
    prepared: Prepared,
    numbers: NDArray[np.int64],
    name: str,
    compute: Compute,
    *,
    start: int,
    empty: NDArray[np.generic],
) -> NDArray[np.generic]:
    """Those of one file, which is completed."""
    path = prepared.folder / COLUMNS / name / f"{start // TOGETHER:05d}.safetensors"
    count = min(TOGETHER, len(prepared) - start)
    known, values = np.zeros(count, bool), np.zeros((count, *empty.shape), empty.dtype)
    if path.exists():
        try:
            if load_metadata(path) == prepared.info.digest:
                kept = load_tensors(path)
                known, values = kept["known"].numpy(), kept["values"].numpy()
            else:
                log.warning("%s is of another data set; it is made again", path)
        except ValueError as error:
            log.warning("%s; it is made again", error)
    missing = numbers[~known[numbers - start]]
    with ThreadPoolExecutor(READERS) as pool:
        for first in range(0, len(missing), AT_ONCE):
            some = missing[first : first + AT_ONCE]
            values[some - start] = compute(list(pool.map(prepared.__getitem__, some.tolist())))
            known[some - start] = True
    if len(missing):
        path.parent.mkdir(parents=True, exist_ok=True)
        tensors = {"known": torch.from_numpy(known), "values": torch.from_numpy(values)}
        save_tensors(path, tensors, prepared.info.digest)
    return values[numbers - start]
