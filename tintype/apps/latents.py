"""`tintype latents`: pictures become latents, once, for all the steps that will be trained on them.

`torchrun --nproc-per-node 8 -m tintype latents …` shares the shards out among eight processes.
"""

import argparse
import json
from contextlib import nullcontext
from pathlib import Path

from tintype.checkpoints import load_autoencoder
from tintype.common.config import counted, to_json
from tintype.common.device import usable_device
from tintype.common.files import reserved
from tintype.data.buckets import Bucketed, bucket_sizes
from tintype.data.encoding import MEBIBYTE, make_latents
from tintype.data.latents import StoredLatents
from tintype.data.opening import open_samples
from tintype.data.views import AndMirrored, Sized
from tintype.training.world import joined

DONE, FAILED = 0, 1
TOLD = 10  # of samples without a mask


def latents(arguments: argparse.Namespace) -> int:
    """Exit code 1 when --verify finds damage."""
    if arguments.verify:
        return _verify(Path(arguments.source), as_json=arguments.json)
    if arguments.out is None or arguments.model is None:
        raise ValueError("expected OUT and a --model, such as: tintype latents prepared latents --model default")
    for name in ("batch_size", "workers", "shard_mib"):
        if getattr(arguments, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')} {getattr(arguments, name)}: expected 1 or more")
    out, (samples, source) = Path(arguments.out), _samples(arguments)
    device = usable_device(arguments.device)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"{out} cannot be made ({error.strerror}); expected a folder, there or to be made") from error
    with joined(device) as world, reserved(out, what="tintype latents") if world.rank == 0 else nullcontext():
        make_latents(
            out,
            samples,
            load_autoencoder(arguments.model, device=device),
            source=source,
            precision=arguments.dtype,
            shard_bytes=arguments.shard_mib * MEBIBYTE,
            batch_size=arguments.batch_size,
            workers=arguments.workers,
            progress=world.rank == 0 and not arguments.json,
            processes=world,
        )
        if world.rank == 0:
            _tell(StoredLatents(out), as_json=arguments.json)
    return DONE


def _samples(arguments: argparse.Namespace) -> tuple[Sized, str]:
    """What is to be encoded, and in words what that is."""
    samples, digest = open_samples(Path(arguments.source))
    if isinstance(samples, StoredLatents):
        raise ValueError(f"{arguments.source} holds latents already; expected pictures: a folder of `tintype prepare`")
    told: dict[str, object] = {"samples": digest}
    if arguments.mirrored:
        samples, told["mirrored"] = AndMirrored(samples), True
    if arguments.buckets is not None:
        sizes = bucket_sizes(arguments.buckets**2, multiple=arguments.multiple, max_aspect=arguments.max_aspect)
        samples, told["buckets"] = Bucketed(samples, sizes), sizes
    return samples, json.dumps(told)


def _tell(stored: StoredLatents, *, as_json: bool) -> None:
    overall, channels = (to_json(stored.space(per_channel=each)) for each in (False, True))
    size = sum(shard.bytes for shard in stored.shards)
    if as_json:
        facts = {"out": str(stored.folder), "samples": len(stored), "shards": len(stored.shards), "bytes": size}
        lacking = stored.without_mask.tolist()
        print(json.dumps({**facts, "without_mask": lacking, "space": overall, "space_per_channel": channels}))
        return
    shards = counted(len(stored.shards), "shard")
    print(f"{stored.folder}: {counted(len(stored), 'sample')} in {shards}, {size / MEBIBYTE:.1f} MiB")
    print(f"  scale for unit variance: {stored.space(per_channel=False).scale[0]:.5f} for all channels together")
    for name, values in (("shift", stored.statistics.mean), ("scale", stored.space(per_channel=True).scale)):
        print(f"  {name} of each channel: {' '.join(f'{one:.4g}' for one in values)}")
    if len(lacking := stored.without_mask):
        shown = ", ".join(map(str, lacking[:TOLD].tolist())) + (", …" if len(lacking) > TOLD else "")
        print(
            f"  without a mask: {len(lacking)} of {len(stored)} samples, numbers {shown}; training that is steered by "
            "masks wants one in each: `tintype filter --with-mask`"
        )


def _verify(folder: Path, *, as_json: bool) -> int:
    stored = StoredLatents(folder)
    damaged = stored.verify()
    if as_json:
        print(json.dumps({"folder": str(folder), "damaged": damaged}))
    else:
        for name in damaged:
            print(f"{folder / name}: absent, or its checksum is another")
        found = f"{len(damaged)} damaged" if damaged else "all good"
        print(f"{len(stored.shards)} shards, {len(stored)} samples: {found}")
    return FAILED if damaged else DONE
