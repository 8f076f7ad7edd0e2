"""Policies that are made of others: how their configs name them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from understudy import registry
from understudy.config import Component, config_from_dict

from .base import Policy


def component_of(key: str, given: str | Mapping[str, Any]) -> Component:
    """Return what is named: by a name alone, or as ``{name: …, arguments: {…}}``.

    Args:
        key: where it stands, for errors.

    Raises:
        ConfigError: it is neither.
    """
    return config_from_dict(Component, {"name": given} if isinstance(given, str) else given, source=key)


def make_policy(key: str, given: str | Mapping[str, Any]) -> Policy:
    """Make the policy that is named.

    Raises:
        ConfigError: there is none of this name, or it does not take these arguments.
    """
    component = component_of(key, given)
    policy: Policy = registry.create("policies", component.name, component.arguments)
    return policy
