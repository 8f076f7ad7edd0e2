"""Starting is fast because nothing heavy is imported until it is needed."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.cli.commands import WEATHER
from understudy.cli.main import VERBS

HEAVY = ("torch", "transformers", "tokenizers", "pyarrow", "pydantic", "numpy", "rich", "yaml")


def heavy_modules_after(code: str) -> list[str]:
    script = f"import sys\ntry:\n    {code}\nexcept SystemExit: pass\nfinally: sys.stderr.write(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return sorted(set(HEAVY) & set(done.stderr.split()))


def test_importing_the_package_imports_nothing_heavy() -> None:
    assert heavy_modules_after("import understudy") == []


@pytest.mark.parametrize("arguments", [[], ["--help"], ["--version"], *([*verb.split(), "--help"] for verb in VERBS)])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    assert heavy_modules_after(f"from understudy.cli.main import main; main({arguments!r})") == []


def test_data_commands_import_neither_torch_nor_transformers() -> None:
    code = f"from understudy.cli.main import main; main(['stats', {str(WEATHER)!r}])"
    assert not {"torch", "transformers"} & set(heavy_modules_after(code))
