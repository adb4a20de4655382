"""Configs from words and from JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import pytest

from fpnkit.errors import ConfigError
from fpnkit.settings import as_plain, did_you_mean, fields_of, from_plain, updated, with_settings


@dataclass(frozen=True, kw_only=True)
class Inner:
    low: int = 1
    high: int = 2

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ConfigError(f"low {self.low} above high {self.high}")


@dataclass(frozen=True, kw_only=True)
class Outer:
    name: str
    rate: float = 0.5
    flags: tuple[bool, ...] = ()
    pair: tuple[float, float] = (1.0, 2.0)
    size: int | None = None
    inner: Inner = field(default_factory=Inner)
    more: Inner | None = None


START = Outer(name="x")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["name=y"], {"name": "y"}),
        (["rate=1e-3"], {"rate": 1e-3}),
        (["flags=true,False"], {"flags": (True, False)}),
        (["flags="], {"flags": ()}),
        (["pair=3,4"], {"pair": (3.0, 4.0)}),
        (["size=5"], {"size": 5}),
        (["size=5", "size=none"], {"size": None}),
        (["inner.low=7", "inner.high=9"], {"inner": Inner(low=7, high=9)}),  # each alone would be refused
        (["more.high=5"], {"more": Inner(high=5)}),
        (["more.high=5", "more=none"], {"more": None}),
        (["more=none", "more.high=5"], {"more": Inner(high=5)}),
        (["name=a=b"], {"name": "a=b"}),
    ],
)
def test_words_change_fields(words, expected):
    assert as_plain(with_settings(START, words)) == as_plain(Outer(**{"name": "x", **expected}))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rate"], "expected FIELD=VALUE, got 'rate': the fields are name, rate, flags, pair, size, inner.low, "),
        (["rat=1"], "there is no field 'rat': did you mean rate?"),
        (["low=1"], "there is no field 'low': did you mean inner.low or more.low?"),
        (["inner.hi=1"], "there is no field 'inner.hi': did you mean inner.high?"),
        (["inner=1"], "there is no field 'inner': did you mean inner.low or inner.high?"),
        (["inner=none"], "inner expects Inner, got 'none'"),
        (["inner.low=3"], "low 3 above high 2"),
        (["rate=fast"], "rate expects float, got 'fast'"),
        (["flags=yes"], "flags expects several values, got 'yes'"),
        (["pair=1"], "pair expects 2 values, got '1'"),
        (["size=1.5"], "size expects int or none, got '1.5'"),
    ],
)
def test_words_that_do_not_fit_are_refused(words, message):
    with pytest.raises(ConfigError) as error:
        with_settings(START, words)
    assert str(error.value).startswith(message)


def test_json_and_back_is_the_same():
    config = with_settings(START, ["flags=true", "more.high=5", "rate=2"])
    content = json.loads(json.dumps(as_plain(config)))
    assert content["pair"] == [1.0, 2.0]
    assert content["more"] == {"low": 1, "high": 5}
    assert from_plain(Outer, content) == config
    assert from_plain(Outer, {"name": "x"}) == START  # of a version with fewer fields
    assert updated(config, {"inner": {"low": 0}, "more": None}) == Outer(
        name="x", rate=2.0, flags=(True,), inner=Inner(low=0)
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "expected fields and values, got a value of type list"),
        ({}, "name is missing: it has no default"),
        ({"name": "x", "rates": 1}, "there is no field 'rates': did you mean rate?"),
        ({"name": "x", "inner": {"lo": 1}}, "there is no field 'inner.lo': did you mean inner.low?"),
        ({"name": "x", "inner": 5}, "inner expects fields and values, got a value of type int"),
        ({"name": "x", "inner": None}, "inner expects Inner, got None"),
        ({"name": 5}, "name expects str, got 5"),
        ({"name": "x", "rate": "1"}, "rate expects float, got '1'"),
        ({"name": "x", "rate": True}, "rate expects float, got True"),
        ({"name": "x", "pair": [1]}, "pair expects 2 values, got [1]"),
        ({"name": "x", "flags": [1]}, "flags expects bool, got 1"),
        ({"name": "x", "size": 1.5}, "size expects int, got 1.5"),
    ],
)
def test_json_that_does_not_fit_is_refused(content, message):
    with pytest.raises(ConfigError) as error:
        from_plain(Outer, content)
    assert str(error.value) == message


def test_fields_of_a_class_and_of_a_value_are_the_same():
    assert fields_of(Outer) == fields_of(START)
    assert fields_of(START)[-4:] == ["inner.low", "inner.high", "more.low", "more.high"]


def test_the_nearest_name_or_some():
    assert did_you_mean("aple", ["apple", "pear"], "fruits") == "did you mean apple?"
    assert did_you_mean("zzz", ["apple", "pear"], "fruits") == "fruits are apple, pear"
    assert did_you_mean("zzz", [f"n{each}" for each in range(50)], "they").endswith("n11, ...")
