"""The architecture is what pyproject.toml says it is."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PYPROJECT = ROOT / "pyproject.toml"

WITHOUT_TORCH = {"curate", "formats", "rendering", "stores", "types"}
KNOWS_ONLY_TOKENS = {"batching", "objectives", "train"}
WHERE_TOKENS_COME_FROM = {"environments", "formats", "policies", "stores"}


def existing(names: set[str]) -> list[str]:
    found = {path.parent.name for path in (ROOT / "src/understudy").glob("*/__init__.py")}
    return sorted(f"understudy.{name}" for name in names & found)


def contract(name: str) -> dict:
    contracts = tomllib.loads(PYPROJECT.read_text())["tool"]["importlinter"]["contracts"]
    return next(contract for contract in contracts if contract["name"] == name)


def test_every_import_keeps_the_contracts() -> None:
    # In a process of its own: it configures logging anew and so would silence the loggers of the tests that follow.
    call = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    done = subprocess.run([sys.executable, "-c", call], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "sources", "forbidden"),
    [
        ("Data and rendering work without torch", existing(WITHOUT_TORCH), ["torch"]),
        (
            "Training knows tokens, not where they come from",
            existing(KNOWS_ONLY_TOKENS),
            existing(WHERE_TOKENS_COME_FROM),
        ),
    ],
)
def test_every_package_that_a_contract_is_about_stands_in_it(name: str, sources: list, forbidden: list) -> None:
    """import-linter refuses names of packages that do not exist yet, so each is added when it comes."""
    found = contract(name)
    assert sorted(found["source_modules"]) == sources
    assert sorted(found["forbidden_modules"]) == forbidden
