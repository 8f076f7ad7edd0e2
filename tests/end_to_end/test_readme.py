"""The README's commands run, and print what it says.

In a ``console`` block a line that begins with ``$`` is a command, continued where it ends with a backslash, and the
lines below it are its output, stdout and stderr together. ``...`` stands for anything.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
QUICK_START = "understudy quickstart"
"""Is held against the README by a test of its own, because it takes minutes."""


def commands(page: Path) -> list[tuple[str, str]]:
    """Return the commands of a page's console blocks and the output that it shows for each."""
    return commands_in(page.read_text(encoding="utf-8"))


def commands_in(text: str) -> list[tuple[str, str]]:
    """Return the commands of a part of a page, as `commands` does."""
    found: list[tuple[str, str]] = []
    for block in re.findall(r"^```console\n(.*?)^```", text, re.M | re.S):
        for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
            command, _, output = part.partition("\n")
            while command.endswith("\\"):
                more, _, output = output.partition("\n")
                command = command[:-1] + more.strip()
            found.append((command, output))
    return found


def lines(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def run_shell(command: str, folder: Path, *, timeout: float) -> subprocess.CompletedProcess[str]:
    """Run a command line in a folder, stdout and stderr together."""
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    return subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=timeout,
    )


def differs(shown: str, printed: str) -> str | None:
    """Return what was printed where it is not what a page shows."""
    pattern = ".*".join(map(re.escape, lines(shown).split("...")))
    return None if re.fullmatch(pattern, lines(printed), re.S) else printed


def test_every_command_prints_what_the_readme_says(tmp_path: Path) -> None:
    """In one test, for later commands read what earlier ones wrote."""
    for name in ("examples", "recipes"):
        shutil.copytree(ROOT / name, tmp_path / name)
    for command, expected in commands(ROOT / "README.md"):
        if command != QUICK_START:
            assert differs(expected, run_shell(command, tmp_path, timeout=120).stdout) is None, command
