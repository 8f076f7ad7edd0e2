"""Fixtures for tests of training."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training import make_base


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with its tokenizer, as a folder."""
    return make_base(tmp_path_factory.mktemp("base") / "tiny")
