"""The scripted expert: an environment's own knowledge of how its tasks are solved, as a policy."""

from __future__ import annotations

from understudy.environments import Expert, ExpertStuck, HasExpert
from understudy.errors import ConfigError, PolicyError

from .base import Action, Context, EpisodeStart, Policy, with_call_ids


class ExpertPolicy(Policy):
    """Acts as the environment's expert does."""

    name = "expert"

    def for_episode(self, start: EpisodeStart) -> Policy:
        """Ask the environment for its expert.

        Raises:
            ConfigError: it has none.
        """
        if not isinstance(start.environment, HasExpert):
            raise ConfigError(f"{type(start.environment).__name__} has no expert; use another policy")
        return ScriptedPolicy(start.environment.expert(start.agent), name=self.name)

    async def act(self, context: Context) -> Action:
        """An expert belongs to one episode, so this cannot be."""
        raise PolicyError("an expert acts within one episode: call for_episode first")


class ScriptedPolicy(Policy):
    """Acts as a function says: ``expert(observation) -> message``."""

    def __init__(self, expert: Expert, *, name: str = "scripted") -> None:
        self.name = name
        self._expert = expert

    async def act(self, context: Context) -> Action:
        """Ask the function.

        Raises:
            ExpertStuck: it knows no way on from here.
            PolicyError: it failed.
        """
        try:
            message = self._expert(context.observation)
        except ExpertStuck:
            raise
        except Exception as error:  # a script is foreign code: whatever it raises ends its episode and no other
            raise PolicyError(f"the script failed: {type(error).__name__}: {error}") from error
        return Action(with_call_ids(message, context.messages))
