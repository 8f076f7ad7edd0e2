"""What the tests of mappings share: the shape of the `read` fixture, and short messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from understudy.types import Episode

Read = Callable[..., Episode]
"""(a mapping's YAML, a row, options behind the mapping's name) -> the row's episode."""


def user(text: str = "hi") -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str = "hello", **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


ONE = [user()]
"""The least conversation."""


def texts(episode: Episode) -> list[tuple[str, str]]:
    return [(message.role, message.text()) for message in episode.trajectories[0].messages()]
