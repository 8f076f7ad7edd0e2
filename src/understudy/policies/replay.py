"""The replay policy: acts as recorded episodes did, on the same tasks."""

from __future__ import annotations

from collections.abc import Iterable

from understudy.environments import task_key
from understudy.errors import ConfigError, PolicyError
from understudy.types import JSON, Episode, Turn

from .base import Action, Context, EpisodeStart, Policy


class ReplayPolicy(Policy):
    """Acts as was recorded. Sample n of a task replays the n-th recording of it, starting over after the last.

    Args:
        source: a file or folder of episodes, in any format, or the episodes themselves.
    """

    name = "replay"

    def __init__(self, source: str | Iterable[Episode]) -> None:
        self._source = source if isinstance(source, str) else "(given episodes)"
        self._recorded: dict[tuple[str, str], list[tuple[Turn, ...]]] = {}
        for episode in _read(source):
            for trajectory in episode.trajectories:
                actions = tuple(turn for turn in trajectory.turns if turn.action is not None and not turn.is_label)
                self._recorded.setdefault((task_key(episode.task), trajectory.agent), []).append(actions)

    def identity(self) -> JSON:
        """Name the source."""
        return {"name": self.name, "source": self._source}

    def for_episode(self, start: EpisodeStart) -> Policy:
        """Find the recording.

        Raises:
            PolicyError: nothing was recorded for this task and agent.
        """
        recordings = self._recorded.get((task_key(start.task), start.agent))
        if not recordings:
            raise PolicyError(f"no episode of {self._source} has this task for agent {start.agent!r}")
        return _Recording(recordings[start.sample % len(recordings)])

    async def act(self, context: Context) -> Action:
        """A recording belongs to one episode, so this cannot be."""
        raise PolicyError("a recording is of one episode: call for_episode first")


class _Recording(Policy):
    """The actions of one trajectory."""

    name = "replay"

    def __init__(self, turns: tuple[Turn, ...]) -> None:
        self._turns = turns

    async def act(self, context: Context) -> Action:
        """Return the action of this turn."""
        if context.turn >= len(self._turns):
            raise PolicyError(f"the recording ends after {len(self._turns)} actions, and the episode goes on")
        turn = self._turns[context.turn]
        assert turn.action is not None
        return Action(turn.action, sampled=turn.sampled)


def _read(source: str | Iterable[Episode]) -> Iterable[Episode]:
    if not isinstance(source, str):
        return source
    from understudy.formats import read_episodes

    episodes = list(read_episodes(source))
    if not episodes:
        raise ConfigError(f"{source} holds no episodes to replay")
    return episodes
