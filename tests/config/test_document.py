"""YAML as people mean it."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from understudy.config import dump_document, parse_document, read_document
from understudy.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5),
        ("5E3", 5000.0),
        ("-1.5e+2", -150.0),
        (".5", 0.5),
        ("010", 10),
        ("0o17", 15),
        ("0x1F", 31),
        ("-7", -7),
        ("true", True),
        ("no", "no"),
        ("on", "on"),
        ("12:30:45", "12:30:45"),
        ("2024-01-31", "2024-01-31"),
        ("~", None),
        ("", None),
        ("'1e-5'", "1e-5"),
        ("=", "="),
        ("[a, 1, null]", ["a", 1, None]),
    ],
)
def test_plain_scalars_follow_the_core_schema_of_yaml_1_2(text: str, value: object) -> None:
    found = parse_document(f"key: {text}").value["key"]
    assert found == value
    assert type(found) is type(value)


def test_keys_are_text_whatever_they_look_like() -> None:
    assert parse_document("1: a\ntrue: b\non: c\n").value == {"1": "a", "true": "b", "on": "c"}


def test_every_key_and_item_knows_its_line() -> None:
    document = parse_document("a:\n  b: 1\n  c:\n    - x\n    - d: 2\n")
    assert document.lines[("a", "b")] == 2
    assert document.lines[("a", "c", 1)] == 5
    assert document.lines[("a", "c", 1, "d")] == 5


def test_all_repeated_keys_are_refused_with_both_lines() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_document("a: 1\nb:\n  c: 1\n  c: 2\na: 3\n", source="x.yaml")
    assert "x.yaml:4: b.c: this key stands already on line 3" in str(caught.value)
    assert "x.yaml:5: a: this key stands already on line 1" in str(caught.value)


def test_anchors_and_merge_keys_work_and_own_keys_win() -> None:
    value = parse_document("base: &base {x: 1, y: 2}\nmine:\n  <<: *base\n  y: 3\n").value
    assert value["mine"] == {"x": 1, "y": 3}


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a:\n\tb: 1\n", 2, "indent with spaces"),
        ("a: 1\nb: c: d\n", 2, "quote text"),
        ("a: [1, 2\n", 2, "not YAML"),
        ("a: !!python/object:os.system {}\n", 1, "without tags"),
        ("a: &x [*x]\n", 1, "inside itself"),
        ("a: 1\n? [x]\n: 2\n", 2, "keys are plain words"),
    ],
)
def test_broken_yaml_is_refused_with_its_line_and_a_mend(text: str, line: int, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        parse_document(text, source="x.yaml")
    assert str(caught.value).startswith(f"x.yaml:{line}:")


@pytest.mark.parametrize("text", ["- a\n- b\n", "just text", "5"])
def test_a_top_level_that_is_no_mapping_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="a config is a mapping"):
        parse_document(text)


def test_deep_nesting_and_endless_numbers_are_refused_not_crashed_on() -> None:
    with pytest.raises(ConfigError, match="nested too deeply"):
        parse_document("[" * 20_000)
    with pytest.raises(ConfigError, match="digits"):
        parse_document("a: " + "9" * 5000)


def test_files_that_cannot_be_read_are_refused_by_name(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"missing\.yaml: cannot read"):
        read_document(tmp_path / "missing.yaml")
    (tmp_path / "latin.yaml").write_bytes("a: é".encode("latin-1"))
    with pytest.raises(ConfigError, match="not UTF-8"):
        read_document(tmp_path / "latin.yaml")


def test_a_byte_order_mark_and_an_empty_file_are_fine(tmp_path) -> None:
    (tmp_path / "bom.yaml").write_bytes(b"\xef\xbb\xbfa: 1\r\n")
    assert read_document(tmp_path / "bom.yaml").value == {"a": 1}
    (tmp_path / "empty.yaml").write_bytes(b"# nothing\n")
    assert read_document(tmp_path / "empty.yaml").value == {}


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
TRAPS = st.sampled_from(
    ["1e-5", "no", "0o7", "12:30", "~", "", "null", "- a", "a: b", "#", "<<", "2024-01-01", "\u2028"]
)
VALUES = st.recursive(
    SCALARS | TRAPS, lambda inner: st.lists(inner) | st.dictionaries(st.text(min_size=1), inner), max_leaves=20
)


@given(st.dictionaries(st.text(min_size=1) | TRAPS.filter(bool), VALUES))
def test_what_is_dumped_reads_back_equal_here_and_in_yaml_1_1(value: dict) -> None:
    text = dump_document(value)
    assert parse_document(text).value == value
    assert yaml.safe_load(text) == value
