"""Paths find what they say, and what is taken and what is left make up the row."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.errors import ConfigError
from understudy.formats.mapping.paths import MISSING, compile_path, without


class TestPaths:
    ROW: ClassVar = {"a": {"b": [{"c": 1}, {"c": 2}, {"d": 3}]}, "x.y": {"z": None}, "list": [10, 20]}

    @pytest.mark.parametrize(
        ("path", "found"),
        [
            ("a.b[0].c", 1),
            ("a.b[-1].d", 3),
            ("a.b[*].c", [1, 2]),
            ('["x.y"].z', None),
            ("list[1]", 20),
            ("list[2]", MISSING),
            ("a.b.c", MISSING),
            ("list.a", MISSING),
            ("a[0]", MISSING),
            ("nothing", MISSING),
        ],
    )
    def test_a_path_leads_where_it_says_or_nowhere(self, path: str, found: Any) -> None:
        assert compile_path(path).find(self.ROW) == found

    @pytest.mark.parametrize("text", ["", ".", "a.", ".a", "a..b", "a[", "a[x]", "a[0]b", 'a["b]', "a.[0]"])
    def test_what_is_no_path_is_refused_with_an_example(self, text: str) -> None:
        with pytest.raises(ConfigError, match="is not a path: write it like"):
            compile_path(text)

    def test_what_is_taken_leaves_no_empty_shells_behind(self) -> None:
        row = {"a": {"b": 1}, "c": {"d": 1, "e": 2}, "l": [{"t": 1, "u": 2}, {"t": 3}], "one": [5], "two": [5, 6]}
        taken = [compile_path(text) for text in ("a.b", "c.d", "l[*].t", "one[0]", "two[0]")]
        assert without(row, taken) == {"c": {"e": 2}, "l": [{"u": 2}, {}], "two": [5, 6]}

    def test_taking_nothing_leaves_the_row_as_it_is(self) -> None:
        assert without(self.ROW, []) == self.ROW

    json_values = st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=3),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
        max_leaves=12,
    )

    @given(
        st.dictionaries(st.sampled_from("abc"), json_values), st.lists(st.sampled_from("abc"), min_size=1, max_size=3)
    )
    def test_what_stands_at_a_path_and_what_is_left_make_up_the_row(
        self, row: dict[str, Any], steps: list[str]
    ) -> None:
        path = compile_path(".".join(steps))
        value = path.find(row)
        rest = without(row, [path])
        if value is MISSING:
            assert rest == row
            return
        node = rest
        for step in steps[:-1]:
            node = node.setdefault(step, {})
        assert steps[-1] not in node
        node[steps[-1]] = value
        assert rest == row
