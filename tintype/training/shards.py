"""Checkpoints that every process writes its share of, and any number of processes reads again.

`torch.distributed.checkpoint` in its safetensors format: one file per process, each tensor's place in its header.
Nothing in them is unpickled.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path

import torch.distributed as dist
from safetensors import SafetensorError
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save


def save_shards(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """All processes call this together. Raises `OSError` in all of them when one cannot write."""
    folder.mkdir(exist_ok=True)
    try:
        save(dict(tensors), storage_writer=HuggingFaceStorageWriter(str(folder), save_distributed=True))
    except CheckpointException as error:
        raise OSError(f"{folder} cannot be written ({_first(error)})") from error


def load_shards(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Read into tensors, which may be in shares or whole. Raises `ValueError` when the files are damaged, or of other
    tensors."""
    reader = HuggingFaceStorageReader(str(folder))
    try:
        unknown = sorted(reader.read_metadata().state_dict_metadata.keys() - tensors.keys())
        if unknown:
            raise ValueError(f"unexpected in {folder}: {', '.join(unknown[:3])}")
        with warnings.catch_warnings():  # that it is one process which reads
            warnings.filterwarnings("ignore", "torch.distributed is disabled")
            load(dict(tensors), storage_reader=reader, no_dist=not dist.is_initialized())
    except CheckpointException as error:
        raise ValueError(_first(error)) from error
    except (SafetensorError, OSError) as error:
        raise ValueError(str(error)) from error


def _first(error: CheckpointException) -> str:
    return str(next(iter(error.failures.values()))[0])
