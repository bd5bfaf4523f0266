"""Two calls timed in turn in one process, so that a busy machine is equally busy for both."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Race:
    """Seconds (or counts) of both sides, and by how much ours is less: the median of the rounds' ratios."""

    theirs: float
    ours: float
    ratio: float


Clock = Callable[[], float]


def race(theirs: Callable[[], object], ours: Callable[[], object], *, rounds: int, clock: Clock) -> Race:
    """In turn, one warm-up round first; who begins changes from round to round."""
    seconds: list[tuple[float, float]] = []
    for number in range(rounds + 1):
        order = (theirs, ours) if number % 2 else (ours, theirs)
        taken = {call: _seconds(call, clock) for call in order}
        seconds.append((taken[theirs], taken[ours]))
    timed = seconds[1:]
    return Race(
        theirs=statistics.median(one for one, _ in timed),
        ours=statistics.median(one for _, one in timed),
        ratio=statistics.median(one / other for one, other in timed),
    )


def _seconds(call: Callable[[], object], clock: Clock) -> float:
    begin = clock()
    call()
    return clock() - begin
