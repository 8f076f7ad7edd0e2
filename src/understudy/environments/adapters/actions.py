"""Actions of gymnasium's spaces as texts: what they are called, and which one a text names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from understudy.errors import ConfigError


def action_names(space: Any, id: str, given: Sequence[str] | None) -> tuple[str, ...] | None:
    """Return what the actions of a space are called: by default their numbers; None where an action is any text.

    Raises:
        ConfigError: there are not as many names as actions, or the actions are neither a few nor texts.
    """
    kind = type(space).__name__
    if kind == "Text":
        return None
    if kind != "Discrete":
        raise ConfigError(f"the actions of {id} are {space}, and only Discrete and Text can be written")
    names = tuple(given or map(str, range(int(space.start), int(space.start + space.n))))
    if len(names) != space.n or len({name.lower() for name in names}) != len(names):
        raise ConfigError(f"actions: {id} has {space.n} actions; give each a name of its own, not {', '.join(names)}")
    return names


def action_named(text: str, names: Sequence[str], space: Any) -> Any:
    """Return the action that a text names: the whole text, else the last name within it; None where it names none."""
    said = text.strip().lower()
    by_name = {name.lower(): number for number, name in enumerate(names)}
    if said not in by_name:
        either = "|".join(sorted(map(re.escape, by_name), key=len, reverse=True))
        found = re.findall(rf"(?<!\w)(?:{either})(?!\w)", said)
        said = found[-1] if found else ""
    number = by_name.get(said)
    return None if number is None else number + int(space.start)


def instructions_for(names: Sequence[str] | None) -> str:
    """Return a line that tells an agent how to act."""
    if names is None:
        return "Act in the environment: write your action and nothing else."
    return f"Act in the environment: write one of {', '.join(names)} and nothing else."
