"""Running the command line, in this process or in one of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WEATHER = ROOT / "examples" / "data" / "weather.jsonl"


def command(*arguments: object) -> list[str]:
    """Return the words of a command line for `subprocess`."""
    return [sys.executable, "-c", "import sys; from understudy.cli.main import main; sys.exit(main())"] + [
        str(argument) for argument in arguments
    ]


def run_command(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    """Run a command line in a process of its own."""
    return subprocess.run(command(*arguments), capture_output=True, text=True, check=False, timeout=120, **options)
