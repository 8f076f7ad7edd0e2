"""Fixtures that the commands' tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.commands import WEATHER
from understudy.models.tiny import CHAT_TEMPLATE, train_tokenizer


def save_model(folder: Path, template: str) -> Path:
    """Save a small tokenizer with this template as a model's folder."""
    train_tokenizer([WEATHER.read_text()], vocab_size=400, chat_template=template).save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model's folder whose template only ever appends."""
    return save_model(tmp_path_factory.mktemp("model"), CHAT_TEMPLATE.read_text())


@pytest.fixture(scope="session")
def forgetful_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model's folder whose template leaves reasoning out of history, so that turns branch."""
    template = CHAT_TEMPLATE.read_text().replace(
        "if message.reasoning_content", "if message.reasoning_content and loop.last"
    )
    return save_model(tmp_path_factory.mktemp("forgetful"), template)
