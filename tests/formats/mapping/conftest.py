"""Reading one row by a mapping that a test writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from understudy.formats import get_format
from understudy.types import Episode

from .reading import Read


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """A function that writes a mapping's YAML and reads one row by it."""

    def read_one(yaml: str, row: dict[str, Any], options: str = "") -> Episode:
        file = tmp_path / "mapping.yaml"
        file.write_text(yaml)
        (episode,) = get_format(f"{file}{options}").decode(row, id="row-1")
        return episode

    return read_one
