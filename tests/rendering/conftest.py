"""Fixtures that the rendering tests share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from understudy.rendering import ModelTokenizer, from_transformers, load_tokenizer


@pytest.fixture(scope="session")
def qwen3(test_data: Path) -> ModelTokenizer:
    return load_tokenizer(test_data / "tokenizers" / "qwen3")


@pytest.fixture(scope="session")
def deepseek_v3(test_data: Path) -> ModelTokenizer:
    from transformers import PreTrainedTokenizerFast

    folder = test_data / "tokenizers" / "deepseek-v3"
    tokenizer: Any = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    return from_transformers(
        tokenizer, name="deepseek-v3", chat_template=(folder / "chat_template.jinja").read_text(encoding="utf-8")
    )
