"""The command line's surface is frozen, so that options do not breed.

A change on purpose: ``python -m tests.cli.test_surface > tests/cli/surface.txt``, and say why in the commit.
"""

from __future__ import annotations

import importlib
from pathlib import Path

from understudy.cli.main import VERBS
from understudy.cli.parser import Parser

GOLDEN = Path(__file__).with_name("surface.txt")


def surface() -> str:
    """Return every verb with its arguments, one a line."""
    lines: list[str] = []
    for verb, (module, _) in VERBS.items():
        parser = Parser(verb)
        importlib.import_module(module).add_arguments(parser)
        lines.append(verb)
        for action in parser._actions:
            if action.dest != "help":
                name = "/".join(action.option_strings) or str(action.metavar)
                takes = "" if action.nargs == 0 else f" {action.metavar or action.dest.upper()}"
                lines.append(f"  {name}{takes if action.option_strings else ''}")
    return "\n".join(lines) + "\n"


def test_no_verb_and_no_option_came_or_went_unnoticed() -> None:
    assert surface() == GOLDEN.read_text()


if __name__ == "__main__":
    print(surface(), end="")
