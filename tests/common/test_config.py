import dataclasses
import json
from dataclasses import dataclass, field
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tintype.common.config import added, from_json, nearest, override, to_json


@dataclass(frozen=True, kw_only=True, slots=True)
class Ends:
    low: float
    high: float = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Wave:
    period: int
    phase: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    count: int = 3
    rate: float = 0.5
    name: str = "plain"
    on: bool = False
    mode: Literal["fast", "exact"] = "fast"
    size: Literal[256, 984] = 256
    limit: int | None = None
    file: str | None = None
    mult: tuple[int, ...] = (1, 2)
    betas: tuple[float, float] = (0.9, 0.99)
    shape: Ends | Wave = Ends(low=0.0)
    ends: Ends = Ends(low=-1.0)
    table: dict[str, float] = field(default_factory=dict)


FINITE = st.floats(allow_nan=False)
ENDS = st.builds(Ends, low=FINITE, high=FINITE)
CONFIGS = st.builds(
    Config,
    count=st.integers(),
    rate=FINITE,
    name=st.text(),
    on=st.booleans(),
    mode=st.sampled_from(["fast", "exact"]),
    size=st.sampled_from([256, 984]),
    limit=st.none() | st.integers(),
    file=st.none() | st.text(),
    mult=st.lists(st.integers()).map(tuple),
    betas=st.tuples(FINITE, FINITE),
    shape=ENDS | st.builds(Wave, period=st.integers(), phase=FINITE),
    ends=ENDS,
    table=st.dictionaries(st.text(), FINITE),
)


@given(CONFIGS)
def test_a_config_survives_json(config: Config) -> None:
    text = json.dumps(to_json(config))
    back = from_json(Config, json.loads(text))
    assert back == config
    for one in dataclasses.fields(Config):
        assert type(getattr(back, one.name)) is type(getattr(config, one.name))


def test_absent_fields_take_their_defaults() -> None:
    assert from_json(Config, {"count": 4, "ends": {"low": 2}}) == Config(count=4, ends=Ends(low=2.0))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"coutn": 1}, "Config: Config has no 'coutn'; expected count"),
        ({"count": "many"}, "Config.count: got 'many'; expected int"),
        ({"count": True}, "Config.count: got True; expected int"),
        ({"count": 1.5}, "Config.count: got 1.5; expected int"),
        ({"on": 1}, "Config.on: got 1; expected bool"),
        ({"mode": "exactly"}, "Config.mode: got 'exactly'; expected fast or exact"),
        ({"size": 256.0}, "Config.size: got 256.0; expected 256"),
        ({"limit": "x"}, "Config.limit: got 'x'; expected int or null"),
        ({"mult": [1, "b"]}, r"Config.mult\[1\]: got 'b'; expected int"),
        ({"betas": [1, 2, 3]}, r"Config.betas: got \[1, 2, 3\]; expected tuple\[float, float\]"),
        ({"ends": {}}, "Config.ends: .*missing.*'low'"),
        ({"ends": {"low": 1, "hihg": 2}}, "Config.ends: Ends has no 'hihg'; expected high"),
        ({"ends": 3}, "Config.ends: got 3; expected the fields of Ends"),
        ({"table": {"a": "b"}}, "Config.table.a: got 'b'; expected float"),
        ([], r"Config: got \[\]; expected the fields of Config"),
    ],
)
def test_from_json_names_the_field(value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_json(Config, value)


def test_to_json_refuses_what_json_cannot_say() -> None:
    with pytest.raises(TypeError, match="set has no place"):
        to_json({"a": {1, 2}})


@pytest.mark.parametrize(
    ("assignment", "changed"),
    [
        ("count=7", {"count": 7}),
        ("rate=1", {"rate": 1.0}),
        ("rate=1e-3", {"rate": 1e-3}),
        ("on=true", {"on": True}),
        ("name=word", {"name": "word"}),
        ('name="two words"', {"name": "two words"}),
        ("name=a=b", {"name": "a=b"}),
        ("name=1.10", {"name": "1.10"}),
        ("name=007", {"name": "007"}),
        ("name=1e3", {"name": "1e3"}),
        ("name=true", {"name": "true"}),
        ("mode=exact", {"mode": "exact"}),
        ("size=984", {"size": 984}),
        ("limit=5", {"limit": 5}),
        ("limit=null", {"limit": None}),
        ("file=runs/a.safetensors", {"file": "runs/a.safetensors"}),
        ("file=12", {"file": "12"}),
        ("file=null", {"file": None}),
        ("mult=[1,2,4]", {"mult": (1, 2, 4)}),
        ("mult=[]", {"mult": ()}),
        ("betas=[0, 1]", {"betas": (0.0, 1.0)}),
        (" ends.high = 4 ", {"ends": Ends(low=-1.0, high=4.0)}),
        ('ends={"low": 2}', {"ends": Ends(low=2.0)}),
        ("shape.low=9", {"shape": Ends(low=9.0)}),
        ('shape={"period": 2, "phase": 0}', {"shape": Wave(period=2, phase=0.0)}),
        ('table={"a": 1}', {"table": {"a": 1.0}}),
    ],
)
def test_override_gives_each_value_its_fields_type(assignment: str, changed: dict[str, object]) -> None:
    old = Config()
    new = override(old, [assignment])
    assert new == dataclasses.replace(old, **changed)
    for name, value in changed.items():
        assert type(getattr(new, name)) is type(value)
    assert old == Config()


def test_overrides_apply_in_order() -> None:
    assert override(Config(), ["count=1", "ends.low=2", "count=5"]) == Config(count=5, ends=Ends(low=2.0))


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("count", "--set count: expected key=value"),
        ("cuont=3", "--set cuont: Config has no 'cuont'; expected count"),
        ("ends.hihg=3", "--set ends.hihg: Ends has no 'hihg'; expected high"),
        ("count.low=3", "--set count.low: count is a single value; write count="),
        ("limit.low=3", "--set limit.low: limit is a single value"),
        ("count=three", "--set count: got 'three'; expected int"),
        ("count=1.5", "--set count: got 1.5; expected int"),
        ("on=yes", "--set on: got 'yes'; expected bool"),
        ("mode=exat", "--set mode: got 'exat'; expected fast or exact"),
        ("size=300", "--set size: got 300; expected 256 or 984"),
        ("limit=many", "--set limit: got 'many'; expected int or null"),
        ("mult=1", "--set mult: got 1; expected tuple"),
        ("mult=[1,", r"--set mult: \[1, is not JSON \(.*\); words in a list or an object need double quotes"),
        ("mult=[a.pth]", r"""--set mult: \[a.pth\] is not JSON .*, such as '\["a","b"\]'$"""),
        ("betas=[1]", r"--set betas: got \[1\]; expected tuple"),
        ("name=[1]", r"--set name: got \[1\]; expected str"),
        ("name=null", "--set name: got None; expected str"),
        ("=1", "has no ''"),
    ],
)
def test_override_says_what_it_expected(assignment: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        override(Config(), [assignment])


def test_nearest() -> None:
    names = ["ddim", "dpmpp_2m", "euler", "heun"]
    assert nearest("DDMI", names) == "ddim"
    assert nearest("eular", names) == "euler"
    assert nearest("zzz", names) == "ddim, dpmpp_2m, euler or heun"
    assert nearest("zzz", [f"x{number}" for number in range(300)]) == "one of 300, such as x0, x1, x2, x3, x4"
    assert nearest("anything", []) == "nothing, for there is none"


@dataclass(frozen=True, kw_only=True, slots=True)
class Grown:
    count: int = 3
    codes: int | None = added(None)
    ends: tuple[float, ...] = added((0.0,))


def test_an_added_field_is_written_when_it_says_something() -> None:
    """So that what was written before the field was there is written the same today."""
    assert to_json(Grown()) == {"count": 3}
    assert to_json(Grown(codes=0, ends=())) == {"count": 3, "codes": 0, "ends": []}
    for config in (Grown(), Grown(codes=0), Grown(ends=(1.0,))):
        assert from_json(Grown, to_json(config)) == config
    assert override(Grown(), ["codes=7"]).codes == 7
