"""The commands and the Python of the pages run, and print what the pages say."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.end_to_end.test_readme import ROOT, commands, differs, run_shell

PAGES = [ROOT / "docs" / f"{name}.md" for name in ("environments", "collecting", "evaluating", "pipeline")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_commands_of_a_page_print_what_it_says(page: Path, tmp_path: Path) -> None:
    for name in ("examples", "recipes"):
        shutil.copytree(ROOT / name, tmp_path / name)
    for command, expected in commands(page):
        assert differs(expected, run_shell(command, tmp_path, timeout=120).stdout) is None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_python_of_a_page_runs(page: Path) -> None:
    for block in re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S):
        exec(compile(block, str(page), "exec"), {})
