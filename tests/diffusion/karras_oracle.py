"""k-diffusion's samplers without its training half, whose imports (torchvision, wandb, ...) no test needs."""

import functools
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType


@functools.cache
def k_diffusion_samplers() -> ModuleType:
    """`k_diffusion.sampling`, its package's own __init__ left out and what it imports in vain replaced."""
    spec = importlib.util.find_spec("k_diffusion")
    assert spec is not None
    assert spec.origin is not None
    package = ModuleType("k_diffusion")
    package.__path__ = [str(Path(spec.origin).parent)]
    transforms, solver = ModuleType("torchvision.transforms"), ModuleType("torchdiffeq")
    transforms.functional = None  # type: ignore[attr-defined]
    solver.odeint = None  # type: ignore[attr-defined]
    absent = {
        "torchvision": ModuleType("torchvision"),
        "torchvision.transforms": transforms,
        "torchdiffeq": solver,
    }
    before = {name: sys.modules.get(name) for name in absent}
    sys.modules |= {"k_diffusion": package, **absent}
    try:
        return importlib.import_module("k_diffusion.sampling")
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
