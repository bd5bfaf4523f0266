"""Lengths in pixels that must fill whole cells."""


def check_multiple(name: str, pixels: int, cell: int) -> None:
    """Raises `ValueError` with the nearest lengths that do."""
    if pixels % cell:
        low = max(pixels // cell, 1) * cell
        raise ValueError(f"{name} {pixels} is not a multiple of {cell}; use {low} or {low + cell}")
