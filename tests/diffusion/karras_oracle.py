"""k-diffusion's samplers and its denoiser's losses, without the rest, whose imports (torchvision, wandb, ...) no test
needs."""

import functools
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType


def k_diffusion_samplers() -> ModuleType:
    """`k_diffusion.sampling`."""
    return _module("sampling")


def k_diffusion_layers() -> ModuleType:
    """`k_diffusion.layers`."""
    return _module("layers")


@functools.cache
def _package() -> ModuleType:
    spec = importlib.util.find_spec("k_diffusion")
    assert spec is not None
    assert spec.origin is not None
    package = ModuleType("k_diffusion")
    package.__path__ = [str(Path(spec.origin).parent)]
    return package


@functools.cache
def _module(name: str) -> ModuleType:
    """One of its modules, the package's own __init__ left out and what it imports in vain replaced."""
    package = _package()
    transforms, solver = ModuleType("torchvision.transforms"), ModuleType("torchdiffeq")
    transforms.functional = None
    solver.odeint = None
    cosine = ModuleType("dctorch")
    cosine.functional = None
    absent = {
        "torchvision": ModuleType("torchvision"),
        "torchvision.transforms": transforms,
        "torchdiffeq": solver,
        "dctorch": cosine,
    }
    before = {name: sys.modules.get(name) for name in absent}
    sys.modules |= {"k_diffusion": package, **absent}
    try:
        return importlib.import_module(f"k_diffusion.{name}")
    finally:
        for other, module in before.items():
            if module is None:
                del sys.modules[other]
            else:
                sys.modules[other] = module
