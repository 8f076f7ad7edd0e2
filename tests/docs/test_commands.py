"""The commands and the Python of the pages run, and print what the pages say."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.docs.running import files_in, python_in, run
from tests.end_to_end.test_readme import ROOT, commands_in, differs

NAMES = ("environments", "collecting", "evaluating", "pipeline", "world_models", "iterations", "stores")


@pytest.mark.parametrize("name", NAMES)
def test_what_a_page_says_runs_and_prints_what_it_says(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one test, for later commands read what earlier ones wrote."""
    page = ROOT / "docs" / f"{name}.md"
    text = page.read_text(encoding="utf-8")
    for folder in ("examples", "recipes"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    for file, content in files_in(text).items():
        (tmp_path / file).write_text(content, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    for command, expected in commands_in(text):
        assert differs(expected, run(command, tmp_path)[1]) is None, command
    for block in python_in(text):
        exec(compile(block, str(page), "exec"), {})
