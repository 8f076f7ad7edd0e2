"""Components by name: built in, of an installed package, or a user's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from understudy import registry
from understudy.environments.math import Math
from understudy.errors import ConfigError


def test_every_name_of_every_table_can_be_imported() -> None:
    for family, table in registry.TABLES.items():
        for name in table:
            assert registry.load(family, name) is not None


def test_a_class_of_ones_own_is_found_in_a_package_and_in_a_file(tmp_path: Path) -> None:
    assert registry.load("environments", "understudy.environments.math:Math") is Math
    file = tmp_path / "mine.py"
    file.write_text(
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "@dataclass\n"
        "class Mine:\n"
        "    size: int = 3\n"
    )
    assert registry.create("environments", f"{file}:Mine", {"size": 4}).size == 4


@pytest.mark.parametrize(
    ("family", "name", "message"),
    [
        ("environments", "mth", "unknown environment 'mth'. Did you mean 'math'"),
        ("policies", "expirt", "unknown policy 'expirt'. Did you mean 'expert'"),
        ("policies", "nowhere:Thing", "cannot import 'nowhere:Thing'"),
        ("policies", "nowhere.py:Thing", "No such file"),
        ("policies", "understudy.policies.base:Thing", "has no attribute 'Thing'"),
    ],
)
def test_a_name_that_leads_nowhere_says_what_there_is(family: str, name: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        registry.load(family, name)
    assert message in str(caught.value)


def needs(a: int, *, b: str = "x", **rest: object) -> tuple[object, ...]:
    return a, b, rest


def test_arguments_are_checked_before_the_component_is_made() -> None:
    name = f"{__name__}:needs"
    assert registry.create("environments", name, {"a": 1, "c": 2}) == (1, "x", {"c": 2})
    with pytest.raises(ConfigError, match="needs the argument 'a'"):
        registry.create("environments", name, {"b": "y"})
    with pytest.raises(ConfigError, match=r"math has no argument 'max_operand_'\. Did you mean 'max_operand'"):
        registry.create("environments", "math", {"max_operand_": 3})
    with pytest.raises(ConfigError, match="It takes none"):
        registry.create("policies", "expert", {"seed": 3})


def rows(count: int, names: tuple[str, str] = ("a", "b"), *, fail: Path | None = None) -> list[str]:
    if fail is not None:
        raise TypeError("of its own")
    return list(names) * (count + 0)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("grid", {"size": "big"}, "grid: size is 'big': input should be a valid integer"),
        ("search", {"num_hops": 3}, "search: num_hops is 3: input should be a valid array"),
        ("debate", {"turn_order": [1]}, r"debate: turn_order\[0\] is \[1\]"),
        ("tools", {"kinds": [["cancel"]]}, r"tools: kinds\[0\] is"),
        (f"{__name__}:rows", {"count": "3"}, "rows: count is '3': input should be a valid integer"),
    ],
)
def test_an_argument_of_a_wrong_type_is_named(name: str, arguments: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        registry.create("environments", name, arguments)


def test_what_goes_wrong_within_a_component_is_not_taken_for_its_arguments() -> None:
    name = f"{__name__}:rows"
    assert registry.create("environments", name, {"count": 1, "names": ["c", "d"]}) == ["c", "d"]
    with pytest.raises(TypeError, match="of its own"):
        registry.create("environments", name, {"count": 1, "fail": Path("x")})
