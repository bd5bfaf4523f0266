"""What went wrong with a job, for who asked for it."""

import errno

from tintype.serving.jobs import is_full


def fault_of(error: Exception) -> tuple[str, str]:
    """A word for it, and a sentence."""
    if isinstance(error, ValueError):
        return "invalid", str(error)
    if isinstance(error, FloatingPointError):
        return "not_numbers", str(error)
    if (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)) or is_full(error):
        return "no_space", "the disk of the server is full; try again when there is room"
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "allocate memory" in str(error):
        return "out_of_memory", "not enough memory for this request; ask for a smaller picture or fewer at once"
    return "internal", "an error inside the server; its log tells more"
