"""The models inside the package."""

from importlib import resources


def embedded() -> list[str]:
    """Their names."""
    return sorted(
        entry.name for entry in resources.files("tintype.weights").iterdir() if (entry / "model.json").is_file()
    )
