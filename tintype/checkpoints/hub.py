"""Models from the Hugging Face hub, fetched once into its own cache. Only here is anything asked of a network."""

import fnmatch
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tintype.checkpoints.diffusers_folder import INDEX, names_class, read_pipeline
from tintype.checkpoints.weight_files import chosen, weight_files

if TYPE_CHECKING:
    from huggingface_hub import HfApi

log = logging.getLogger(__name__)

REPOSITORY = re.compile(r"\w[\w.-]*/\w[\w.-]*")
FILE = re.compile(rf"({REPOSITORY.pattern})/(.+\.(?:safetensors|ckpt|pt|pth|bin))")
PLAIN = re.compile(r"[\w-]+\.(?:safetensors|bin)")  # of no variant
NETWORKS = ("unet", "vae", "vqvae", "text_encoder", "text_encoder_2", "bert")
CONFIGURATIONS = [
    "*.json",
    *(f"{part}/*.{kind}" for part in (*NETWORKS, "tokenizer*", "scheduler") for kind in ("json", "txt")),
]


def is_hub_name(name: str) -> bool:
    """Whether it is written as owner/repository, or owner/repository/file."""
    if FILE.fullmatch(name):
        return True
    return REPOSITORY.fullmatch(name) is not None and not name.endswith(
        (".safetensors", ".ckpt", ".pt", ".pth", ".bin")
    )


def fetched(name: str, *, variant: str | None = None) -> Path:
    """The file, or the folder in diffusers' layout, in the hub's cache. What is there whole is taken without asking
    the hub; what was cut short is gone on with.

    Raises `ValueError` when there is no such repository, or nothing here and no connection, saying what to fetch.
    """
    from huggingface_hub import HfApi, hf_hub_download, snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HTTPError,  # pyright: ignore[reportPrivateImportUsage] (of the HTTP library that it is built with)
        LocalEntryNotFoundError,
    )

    file, cached = FILE.fullmatch(name), None
    try:
        if file:
            return Path(hf_hub_download(file[1], file[2], local_files_only=True))
        cached = Path(snapshot_download(name, allow_patterns=[INDEX], local_files_only=True))
        if _whole(cached, variant) and (variant or _plain(cached)):
            return cached
    except LocalEntryNotFoundError:
        pass
    log.warning("%s is not here; asking the hub for it", name)
    try:
        snapshot_download(file[1] if file else name, allow_patterns=[INDEX])  # fails at once where there is no hub
        if file:
            return Path(hf_hub_download(file[1], file[2]))
        return _from_hub(HfApi(), name, variant)
    except HfHubHTTPError as error:
        raise ValueError(
            f"the hub refused {name!r}: {error}; expected a public owner/repository, or one you may read"
        ) from error
    except (HTTPError, OSError) as error:
        if cached is not None and _whole(cached, variant):
            log.warning("%s: the hub cannot be reached; taken as it is here, in another precision", name)
            return cached
        command = f"hf download {file[1]} {file[2]}" if file else f"hf download {name}"
        raise ValueError(
            f"{name!r} is no path, not in the hub's cache, and the hub cannot be reached ({_first_line(error)}). Where "
            f"there is a connection run: {command} (of a repository {INDEX} and {', '.join(NETWORKS)}, tokenizer and "
            "scheduler are enough); then give the path"
        ) from error


def _from_hub(api: "HfApi", name: str, variant: str | None) -> Path:
    from huggingface_hub import hf_hub_download, snapshot_download

    names = api.list_repo_files(name)
    if INDEX in names:
        patterns = [one for part in NETWORKS for one in _weights(part, names, variant)]
        return Path(snapshot_download(name, allow_patterns=[*CONFIGURATIONS, *patterns]))
    single = [one for one in names if fnmatch.fnmatch(one, "*.safetensors") or one.endswith(".ckpt")]
    if len(single) == 1:
        return Path(hf_hub_download(name, single[0]))
    listed = ", ".join(f"{name}/{one}" for one in single) or "nothing that could be opened"
    raise ValueError(f"{name} is no folder in diffusers' layout; it holds {listed}; name one of its files")


def _weights(part: str, names: Sequence[str], variant: str | None) -> list[str]:
    """The files of one network to fetch, as patterns."""
    inside = [name.removeprefix(f"{part}/") for name in names if name.startswith(f"{part}/")]
    found = chosen(inside, variant) or chosen(inside)
    if found is None:
        return []
    if not found.endswith(".json"):
        return [f"{part}/{found}"]
    stem, kind = found.split(".")[0], "safetensors" if ".safetensors." in found else "bin"
    of = found.split(".index")[1].removesuffix(".json")  # shards of a variant were once named the other way round
    return [
        f"{part}/{one}" for one in (found, f"{stem}{of}-?????-of-?????.{kind}", f"{stem}-?????-of-?????{of}.{kind}")
    ]


def _whole(folder: Path, variant: str | None) -> bool:
    """Whether all that a cached folder's index names and we need is there."""
    try:
        pipeline = read_pipeline(folder)
        for part in (pipeline.unet, pipeline.autoencoder, *pipeline.towers, *filter(None, (pipeline.bert,))):
            weight_files(part.folder, variant)
    except ValueError:
        return False
    return all(
        (folder / name).is_dir()
        for name in pipeline.settings
        if name.startswith("tokenizer") and names_class(pipeline.settings, name)
    )


def _plain(folder: Path) -> bool:
    """Whether the U-Net's weights are those that a name without a variant means."""
    return all(PLAIN.fullmatch(path.name) for path in weight_files(folder / "unet"))


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
