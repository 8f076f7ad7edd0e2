"""What tests of pages share: the files that a page holds, and its commands, run in this process."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from pathlib import Path

from tests.end_to_end.test_readme import run_shell
from understudy.cli.main import main

SHELL = ("accelerate", "torchrun", "ls")
"""What needs a launcher or a shell; the rest is Understudy's own, and is spared loading torch for each command."""


def run(command: str, folder: Path) -> tuple[int, str]:
    """Run a command line in the folder that is the present one; return its exit status and what it printed."""
    if command.startswith(SHELL):
        process = run_shell(command, folder, timeout=120)
        return process.returncode, process.stdout
    program, *arguments = shlex.split(command)
    assert program == "understudy"
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        status = main(arguments)
    return status, printed.getvalue()


def files_in(text: str) -> dict[str, str]:
    """Return the blocks of a page that begin with a file's name as a comment, by these names."""
    return {name: block for block, name in re.findall(r"^```\w+\n(# (\S+\.\w+)\n.*?)^```", text, re.M | re.S)}


def python_in(text: str) -> list[str]:
    """Return the blocks of Python of a page that are no files."""
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)
    return [block for block in blocks if block not in files_in(text).values()]
