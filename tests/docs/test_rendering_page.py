"""The page on rendering cannot drift from the code."""

from __future__ import annotations

import re
from pathlib import Path

from understudy.rendering import MENDS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "rendering.md"


def test_the_page_lists_every_refusal_code_with_its_mend() -> None:
    rows = re.findall(r"^\| `([A-Z_]+)` \| (.+) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert dict(rows) == {str(code): mend for code, mend in MENDS.items()}
