"""The example rows of the page on formats are rows."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from understudy import registry
from understudy.formats import Row, detect

PAGE = (Path(__file__).resolve().parents[2] / "docs/formats.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)


def rows(block: str) -> list[object]:
    """The objects of a block; a long one is broken over lines that begin with a space."""
    return [json.loads(line) for line in re.sub(r"\n ", " ", block).strip().split("\n")]


@pytest.mark.parametrize("block", BLOCKS)
def test_every_example_row_is_detected_and_decoded(block: str) -> None:
    for value in rows(block):
        found = detect([Row(value, "docs/formats.md", 1)])
        assert f"**{found.format.name}**" in PAGE
        (episode,) = found.format.decode(value, id="x")
        assert found.format.name == "alpaca" or found.format.encode(episode).lost == ()


def test_every_format_has_an_example() -> None:
    shown = {detect([Row(value, "f", 1)]).format.name for block in BLOCKS for value in rows(block)}
    assert shown == set(registry.TABLES["formats"])
