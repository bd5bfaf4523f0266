"""Opens a folder of samples, whatever made it: `tintype prepare`, `tintype filter` or `tintype latents`."""

import json
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from tintype.common.config import to_json
from tintype.data.latents import CONTENTS, StoredLatents
from tintype.data.prepared import Prepared
from tintype.data.selection import SELECTION, open_selection
from tintype.data.shards import DATASET
from tintype.data.views import Sized


class DataSet(NamedTuple):
    """`digest`: of all that a reader sees."""

    samples: Sized
    digest: str


def open_samples(folder: Path) -> DataSet:
    """Raises `ValueError` for a folder that none of them made or finished."""
    if (folder / CONTENTS).is_file():
        stored = StoredLatents(folder)
        told = json.dumps(to_json(stored.shards), sort_keys=True)
        return DataSet(stored, sha256(told.encode()).hexdigest())
    if (folder / SELECTION).is_file():
        part, digest = open_selection(folder)
        return DataSet(part, digest)
    if not (folder / DATASET).is_file():
        raise ValueError(
            f"{folder} holds no samples; expected a finished folder of `tintype prepare`, `tintype filter` or "
            "`tintype latents`"
        )
    prepared = Prepared(folder)
    return DataSet(prepared, prepared.info.digest)


def open_pictures(folder: Path) -> Sized:
    """Those of `open_samples`, each with its picture. Raises `ValueError` for a folder of latents, which have none."""
    samples = open_samples(folder).samples
    if isinstance(samples, StoredLatents):
        raise ValueError(
            f"{folder} holds latents, and pictures are needed; expected the folder of `tintype prepare` or `tintype "
            "filter` that they were made from"
        )
    return samples
