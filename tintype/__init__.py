"""tintype: latent diffusion, whole. Importing it is light; torch loads with the first name that needs it.

model = tintype.load("default")
images = tintype.generate(model, tintype.Request(prompt="a red apple", seed=7))
tintype.save(images[0], "apple.png")
for step in tintype.steps(model, tintype.Request(prompt="a red apple")): ...
"""

from typing import TYPE_CHECKING

from tintype.common.version import VERSION as __version__
from tintype.tasks.request import Request

if TYPE_CHECKING:
    from tintype.checkpoints import load
    from tintype.generation import generate, invert, steps
    from tintype.inspection import inspect
    from tintype.tasks.infotext import save

__all__ = ["Request", "__version__", "generate", "inspect", "invert", "load", "save", "steps"]


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> object:
    if name == "load":
        from tintype.checkpoints import load

        return load
    if name == "save":
        from tintype.tasks.infotext import save

        return save
    if name == "inspect":
        from tintype.inspection import inspect

        return inspect
    if name in ("generate", "invert", "steps"):
        import tintype.generation

        return getattr(tintype.generation, name)
    raise AttributeError(f"module 'tintype' has no attribute {name!r}")
