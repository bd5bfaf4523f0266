"""Who watches which job: poked when it changes, to look at what it has become."""

import threading
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, eq=False)
class _Watcher:
    poke: Callable[[], None]
    steps: bool
    previews: bool


class Watchers:
    """Any thread may come, go and tell."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._of: dict[str, tuple[_Watcher, ...]] = {}

    def add(
        self, id: str, poke: Callable[[], None], *, steps: bool = True, previews: bool = False
    ) -> Callable[[], None]:
        """Call `poke`, from any thread, when the job ends, and with `steps` as it comes on; what is given back ends
        that. `poke` must neither wait nor raise. `previews`: it wants to see estimates of the picture."""
        one = _Watcher(poke, steps, previews)
        with self._turn:
            self._of[id] = (*self._of.get(id, ()), one)

        def end() -> None:
            with self._turn:
                left = tuple(other for other in self._of.get(id, ()) if other is not one)
                self._of = {key: value for key, value in (self._of | {id: left}).items() if value}

        return end

    def tell(self, id: str, *, step: bool = False) -> None:
        """That the job changed; `step`: only that it came on."""
        for one in self._of.get(id, ()):
            if one.steps or not step:
                one.poke()

    def want_previews(self, id: str) -> bool:
        return any(one.previews for one in self._of.get(id, ()))

    def __len__(self) -> int:
        return sum(map(len, self._of.values()))
