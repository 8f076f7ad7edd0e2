"""A policy whose states an expert labels: what DAgger collects (Ross et al. 2011, arXiv:1011.0686).

The learner plays, and in every state that it comes to a labeler says what it would have done there. So the learner is
taught in the states that its own mistakes lead to, which demonstrations do not show.
"""

from __future__ import annotations

import asyncio
import random

from understudy.environments import ExpertStuck
from understudy.errors import ConfigError
from understudy.types import JSON, Message

from .base import Action, Context, EpisodeStart, Policy


class LabelledPolicy(Policy):
    """Acts as a policy does, and records what a labeler would have done.

    A state in which the labeler knows no way on has no label, and says so in its turn's annotation ``unlabelled``.

    Args:
        policy: acts.
        labeler: is asked in every state.
        beta: the chance that it is the labeler who acts, turn by turn; the policy is not asked then.

    Raises:
        ConfigError: beta is no share.
    """

    def __init__(self, policy: Policy, labeler: Policy, *, beta: float = 0.0) -> None:
        if not 0 <= beta <= 1:
            raise ConfigError(f"beta is {beta}; it is a share, from 0 to 1")
        self.name = policy.name
        self._policy = policy
        self._labeler = labeler
        self._beta = beta

    def identity(self) -> JSON:
        """Name both."""
        identity = {"name": self.name, "policy": self._policy.identity(), "labeler": self._labeler.identity()}
        return identity | {"beta": self._beta}

    def for_episode(self, start: EpisodeStart) -> Policy:
        """Return the same for one episode."""
        policy, labeler = (one.for_episode(start) for one in (self._policy, self._labeler))
        return LabelledPolicy(policy, labeler, beta=self._beta)

    async def act(self, context: Context) -> Action:
        """Let one of the two act, and add the label. Where one of them fails, the other is not waited for."""
        if random.Random(f"{context.seed} labeler").random() < self._beta:
            label = await self._label(context)
            if isinstance(label, Message):
                return Action(label, label=label, annotations={"acted": self._labeler.name})
            return _labelled(await self._policy.act(context), label)
        acting = asyncio.ensure_future(self._policy.act(context))
        labelling = asyncio.ensure_future(self._label(context))
        try:
            return _labelled(*await asyncio.gather(acting, labelling))
        finally:
            acting.cancel()
            labelling.cancel()
            await asyncio.gather(acting, labelling, return_exceptions=True)

    async def close(self) -> None:
        """Let go of both."""
        await self._policy.close()
        await self._labeler.close()

    async def _label(self, context: Context) -> Message | str:
        """Return what the labeler would do, or why it does not know."""
        try:
            return (await self._labeler.act(context)).message
        except ExpertStuck as error:
            return str(error)


def _labelled(action: Action, label: Message | str) -> Action:
    """Return an action with its label, or with the reason why it has none."""
    if isinstance(label, Message):
        return Action(action.message, action.sampled, action.usage, action.annotations, label=label)
    annotations = action.annotations | {"unlabelled": label}
    return Action(action.message, action.sampled, action.usage, annotations, is_context=True)
