"""The mixture: acts as one policy with a given chance, else as another. So success can be set between the two's."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, Literal

from understudy.environments import ExpertStuck
from understudy.errors import ConfigError, did_you_mean
from understudy.types import JSON

from .base import Action, Context, EpisodeStart, Policy
from .nested import make_policy

Per = Literal["turn", "episode"]
PER: tuple[Per, ...] = ("turn", "episode")


class MixturePolicy(Policy):
    """Acts as `policy` with a chance, else as `other`: by default as the expert, else at random.

    Args:
        chance: how likely it is `policy` who acts, from 0 to 1.
        per: whether that is drawn for each ``turn`` or once for each ``episode``. With ``episode`` and the defaults,
            `chance` is the success rate where chance alone never succeeds.
        policy, other: a name, or ``{name: …, arguments: {…}}``. Where `policy` is an expert that knows no way on, the
            other acts.

    Raises:
        ConfigError: an argument is out of range, or a policy cannot be made.
    """

    name = "mixture"

    def __init__(
        self,
        chance: float,
        *,
        per: Per = "turn",
        policy: str | Mapping[str, Any] = "expert",
        other: str | Mapping[str, Any] = "random",
    ) -> None:
        if not 0 <= chance <= 1:
            raise ConfigError(f"chance is {chance!r}; it is a share, from 0 to 1")
        if per not in PER:
            raise ConfigError(f"per is {per!r}.{did_you_mean(per, PER)} Known: {', '.join(PER)}")
        self._chance = chance
        self._per = per
        self._policy = make_policy("policy", policy)
        self._other = make_policy("other", other)

    def identity(self) -> JSON:
        """Name both, and how they are mixed."""
        identity = {"name": self.name, "chance": self._chance, "per": self._per}
        return identity | {"policy": self._policy.identity(), "other": self._other.identity()}

    def for_episode(self, start: EpisodeStart) -> Policy:
        """Return the same for one episode."""
        is_first = random.Random(f"{start.id} mixture").random() < self._chance if self._per == "episode" else None
        policy, other = (one.for_episode(start) for one in (self._policy, self._other))
        return _Mixed(self.name, policy, other, self._chance, is_first)

    async def act(self, context: Context) -> Action:
        """Act as in an episode of which nothing is known."""
        return await _Mixed(self.name, self._policy, self._other, self._chance, None).act(context)

    async def close(self) -> None:
        """Let go of both."""
        await self._policy.close()
        await self._other.close()


class _Mixed(Policy):
    """The mixture in one episode. `is_first` says who acts throughout; None draws it turn by turn."""

    def __init__(self, name: str, policy: Policy, other: Policy, chance: float, is_first: bool | None) -> None:
        self.name = name
        self._policy = policy
        self._other = other
        self._chance = chance
        self._is_first = is_first

    async def act(self, context: Context) -> Action:
        """Draw who acts, and let it."""
        is_first = self._is_first
        if is_first is None:
            is_first = random.Random(f"{context.seed} mixture").random() < self._chance
        if is_first:
            try:
                return await self._policy.act(context)
            except ExpertStuck:
                return await self._other.act(context)
        return await self._other.act(context)
