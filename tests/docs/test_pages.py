"""The docs say what is: pages made from code are up to date, links lead somewhere."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from understudy.config.reference import sections

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")])


def load_build() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build", ROOT / "docs/build.py")
    build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)
    return build


def test_the_config_reference_is_up_to_date() -> None:
    written = (ROOT / "docs/config.md").read_text(encoding="utf-8")
    assert written == load_build().config_page(), "run python docs/build.py"


@pytest.mark.parametrize("target", [target for _, target in load_build().CONFIGS])
def test_every_config_key_is_described(target: str) -> None:
    module, _, name = target.partition(":")
    model = getattr(importlib.import_module(module), name)
    assert [key.name for section in sections(model) for key in section.keys if not key.description] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_to_a_file_leads_to_one(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert missing == []
