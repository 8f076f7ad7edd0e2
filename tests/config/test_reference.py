"""The reference of a config class."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AliasChoices, Field

from understudy.config import ConfigModel, config_help, config_markdown


class Small(ConfigModel):
    """A small model."""

    kind: Literal["small"]
    """Which model."""
    width: int = Field(8, gt=0, le=64)
    """Units | per layer."""


class Large(ConfigModel):
    kind: Literal["large"]


class Part(ConfigModel):
    path: str
    """Where it lies."""


class Settings(ConfigModel):
    """All settings."""

    model: Annotated[Small | Large, Field(discriminator="kind")]
    """What is trained."""
    parts: list[Part] = Field(default_factory=list)
    other: str | tuple[str | Part, ...] = ()
    """See ``parts``."""
    rate: float | None = Field(None, validation_alias=AliasChoices("rate", "speed"))
    mode: Literal["a", "b"] = "a"


def test_markdown_has_a_table_for_each_section_and_variant() -> None:
    assert (
        config_markdown(Settings)
        == """\
All settings.

| key | type | default | meaning |
|---|---|---|---|
| `model` | `section` | required | What is trained. |
| `parts` | `list of section` | `[]` |  |
| `other` | `text \\| list of (text \\| section)` | `[]` | See `parts`. |
| `rate` (also `speed`) | `number \\| null` | `null` |  |
| `mode` | `"a" \\| "b"` | `"a"` |  |

## `model (kind: "small")`

A small model.

| key | type | default | meaning |
|---|---|---|---|
| `kind` | `"small"` | required | Which model. |
| `width` | `integer (> 0, <= 64)` | `8` | Units \\| per layer. |

## `model (kind: "large")`

| key | type | default | meaning |
|---|---|---|---|
| `kind` | `"large"` | required |  |

## `parts.N`, `other.N`

| key | type | default | meaning |
|---|---|---|---|
| `path` | `text` | required | Where it lies. |
"""
    )


def test_help_lists_dotted_keys() -> None:
    text = config_help(Settings)
    assert "  parts.N.path, other.N.path  (text; required)\n      Where it lies.\n" in text
    assert "  rate  (number | null; default null; also speed)\n" in text


class Node(ConfigModel):
    inner: Node | None = None
    """The one below."""


def test_a_class_within_itself_is_described_once() -> None:
    assert config_markdown(Node).count("The one below.") == 1


def test_what_is_described_elsewhere_is_left_out() -> None:
    text = config_markdown(Settings, without={Large, Part})
    assert '`model (kind: "small")`' in text
    assert "large" not in text.replace('"large"', "")
    assert "Where it lies." not in text
    assert "`parts`" in text
