"""Parameter names of other code bases: rules as data, one per parameter, read in both directions.

A map is built from whole names, not patterns, so that it can be proved a bijection when it is made. Tables of module
names are put together with `module` and `inside`; a family writes the loops over its levels and blocks.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor


class Layout(NamedTuple):
    """How one weight lies in memory on either side, as two inverse functions."""

    to_ours: "Callable[[Tensor], Tensor]"
    to_theirs: "Callable[[Tensor], Tensor]"


class Rule(NamedTuple):
    """One parameter under both names; `layout` None: the same tensor on both sides."""

    ours: str
    theirs: str
    layout: Layout | None = None


class Fused(NamedTuple):
    """Several parameters of ours that are one of theirs (queries, keys and values, say), as two inverse functions."""

    ours: tuple[str, ...]
    theirs: str
    split: "Callable[[Tensor], Sequence[Tensor]]"
    join: "Callable[[Sequence[Tensor]], Tensor]"


CONV_1X1 = Layout(  # ours is a linear layer (O I), theirs a 1x1 convolution (O I 1 1)
    to_ours=lambda weight: weight.flatten(1),
    to_theirs=lambda weight: weight[:, :, None, None],
)


def module(ours: str, theirs: str, layout: Layout | None = None) -> Iterator[Rule]:
    """The weight and the bias of one layer; `layout` is the weight's. A layer without a bias is served as well."""
    yield Rule(f"{ours}.weight", f"{theirs}.weight", layout)
    yield Rule(f"{ours}.bias", f"{theirs}.bias")


def inside(ours: str, theirs: str, layers: Mapping[str, str]) -> Iterator[Rule]:
    """The layers of a table (our name: theirs) within one block."""
    for name, their_name in layers.items():
        yield from module(f"{ours}.{name}", f"{theirs}.{their_name}")


def thirds(ours: Iterable[str], theirs: str) -> Fused:
    """Three parameters that lie one after the other in theirs."""
    return Fused(tuple(ours), theirs, lambda whole: whole.chunk(3), _concatenated)


def _concatenated(parts: "Sequence[Tensor]") -> "Tensor":
    import torch

    return torch.cat(tuple(parts))


class KeyMap:
    """Renames whole state dicts. Raises `ValueError` when two rules share a name: then it would be no bijection."""

    def __init__(self, rules: Iterable[Rule | Fused]) -> None:
        listed = [_fused(rule) for rule in rules]
        _reject_repeated([name for rule in listed for name in rule.ours])
        _reject_repeated([rule.theirs for rule in listed])
        self._by_ours = {name: rule for rule in listed for name in rule.ours}
        self._by_theirs = {rule.theirs: rule for rule in listed}

    def below(self, ours: str, theirs: str) -> "KeyMap":
        """The same rules where either side's names begin with a prefix."""
        return KeyMap(
            rule._replace(ours=tuple(ours + name for name in rule.ours), theirs=theirs + rule.theirs)
            for rule in self.rules
        )

    @property
    def rules(self) -> list[Fused]:
        return list(self._by_theirs.values())

    def to_theirs(self, tensors: "Mapping[str, Tensor]") -> "dict[str, Tensor]":
        """Our parameters under their names. Raises `ValueError` naming those no rule knows."""
        _reject_unknown(tensors, self._by_ours)
        rules = {rule.theirs: rule for rule in (self._by_ours[name] for name in tensors)}
        for rule in rules.values():
            absent = [name for name in rule.ours if name not in tensors]
            if absent:
                raise ValueError(f"{_some(absent)} is missing; {rule.theirs} is made of {', '.join(rule.ours)}")
        return {name: rule.join([tensors[part] for part in rule.ours]) for name, rule in rules.items()}

    def to_ours(self, tensors: "Mapping[str, Tensor]") -> "dict[str, Tensor]":
        """The inverse of `to_theirs`."""
        _reject_unknown(tensors, self._by_theirs)
        found: dict[str, Tensor] = {}
        for name, tensor in tensors.items():
            rule = self._by_theirs[name]
            found |= zip(rule.ours, rule.split(tensor), strict=True)
        return found


def _fused(rule: Rule | Fused) -> Fused:
    if isinstance(rule, Fused):
        return rule
    layout = rule.layout or Layout(lambda weight: weight, lambda weight: weight)
    return Fused((rule.ours,), rule.theirs, lambda one: (layout.to_ours(one),), lambda one: layout.to_theirs(one[0]))


def _reject_repeated(names: list[str]) -> None:
    if len(set(names)) < len(names):
        repeated = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"ambiguous rules: more than one for {_some(repeated)}; expected one rule per name")


def _reject_unknown(names: Iterable[str], known: Mapping[str, Fused]) -> None:
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(
            f"no rule for {_some(unknown)}; expected names like {next(iter(known), 'none')}; "
            "is this the network its configuration says?"
        )


def _some(names: list[str], count: int = 3) -> str:
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more
