"""open_clip's own modules, imported one by one: its package wants torchvision, which is not installed."""

import importlib
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from types import ModuleType

import torch
import transformers  # noqa: F401  (it looks for torchvision when it is imported, and should find none)
from torch import nn

from tintype.models.clip_pair import CLIPConfig


@contextmanager
def _stand_ins() -> Iterator[None]:
    """A torchvision of the one name that open_clip asks it for, which our tests never use, while imports last."""
    names = ("torchvision", "torchvision.ops", "torchvision.ops.misc")
    made = {name: types.ModuleType(name) for name in names}
    made["torchvision.ops.misc"].__dict__["FrozenBatchNorm2d"] = nn.BatchNorm2d
    sys.modules |= made
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]


def open_clip(name: str) -> ModuleType:
    """The module `open_clip.<name>`, without what the package does when it is imported."""
    if "open_clip" not in sys.modules:
        spec = find_spec("open_clip")
        assert spec is not None
        package = types.ModuleType("open_clip")
        package.__path__ = list(spec.submodule_search_locations or ())
        sys.modules["open_clip"] = package
    with _stand_ins():
        return importlib.import_module(f"open_clip.{name}")


def their_open_clip(config: CLIPConfig) -> nn.Module:
    """open_clip's CLIP of our configuration."""
    image, text = config.image, config.text
    assert image.activation == text.activation
    return (
        open_clip("model")
        .CLIP(
            embed_dim=image.projection_dim,
            vision_cfg={
                "layers": image.num_layers,
                "width": image.width,
                "head_width": image.width // image.num_heads,
                "patch_size": image.patch_size,
                "image_size": image.image_size,
                "pool_type": {"class": "tok", "mean": "avg"}[image.pooling],
            },
            text_cfg={
                "context_length": text.context_length,
                "vocab_size": text.vocabulary_size,
                "width": text.width,
                "heads": text.num_heads,
                "layers": text.num_layers,
            },
            quick_gelu=image.activation == "quick_gelu",
            init_logit_bias=-10.0 if config.logit_bias else None,
        )
        .eval()
    )


def normalised(image: torch.Tensor, config: CLIPConfig) -> torch.Tensor:
    """Pictures in [-1, 1] as others want them."""
    mean, std = (torch.tensor(colour)[:, None, None] for colour in (config.image.mean, config.image.std))
    return ((image + 1) / 2 - mean) / std
