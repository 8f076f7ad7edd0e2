"""What several configs have in common: something that is made by its name."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from .model import ConfigModel


class Component(ConfigModel):
    """Something that is made by its name."""

    name: str
    """A built-in name, one of another installed package, `package.module:Class`, or `path/to/file.py:Class`."""

    arguments: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of its class."""
