"""UserRL's own gyms (https://github.com/SalesforceAIResearch/UserRL), or any gym that is acted in by the same texts.

A gym takes ``"[choice] content"`` and answers with gymnasium's five-tuples. UserRL's are made with a config object of
their package, whose ``data_mode`` and ``data_source`` say which task is played.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from understudy.environments.base import Expert, Observation, Reward, Step
from understudy.environments.frame import system, user
from understudy.environments.interact import GymState, InteractEnvironment, TextGym, observation_text
from understudy.environments.tasks import split_tasks
from understudy.environments.tool_environment import AGENT
from understudy.errors import ConfigError, did_you_mean
from understudy.types import JSON, Message

from .foreign import in_thread, load_class, read_tasks, seeded


@dataclass(slots=True)
class _State(GymState):
    """A gym under way, and all that it gave so far."""

    total: float = 0.0


class UserRLEnvironment(InteractEnvironment):
    """A gym of UserRL, acted in by the tool ``interact_with_env(choice, content)``.

    Args:
        gym: its class, such as ``travelgym:TravelEnv``, or ``path/to/file.py:Class``.
        config: settings of the gym's package, put into what its ``get_default_config()`` returns (a model for the user
            and its address, rewards, …). None for a gym that takes no config.
        arguments: keyword arguments of the class.
        tasks: the ``data_source`` of each task, as a list or a file of them; None for tasks that the gym draws from
            the seed.
        instructions: what the agent is told at first.
        success_reward: an episode is a success when its rewards add up to this much. Without it success is what
            ``info["success"]`` says, else unknown.
        max_rounds: the episode is truncated after so many steps.
        num_tasks, task_seed: where tasks are seeds; see `ToolEnvironment`.

    Raises:
        ConfigError: the class cannot be imported, or its package's config has no such setting.
    """

    def __init__(
        self,
        *,
        gym: str,
        config: Mapping[str, Any] | None = None,
        arguments: Mapping[str, Any] | None = None,
        tasks: Sequence[JSON] | str | None = None,
        instructions: str | None = None,
        success_reward: float | None = None,
        max_rounds: int = 16,
        num_tasks: Mapping[str, int] | int | None = None,
        task_seed: int = 0,
    ) -> None:
        self._gym_class = load_class(gym, "gym")
        self._config = config
        self._arguments = dict(arguments or {})
        self._given = None if tasks is None else read_tasks(tasks)
        self.instructions = instructions or self.instructions
        self._success_reward = success_reward
        if self._given is not None and config is None:
            raise ConfigError("tasks are set in the gym's config as data_source; give config too, {} for its defaults")
        self._made_config(None)
        super().__init__(num_tasks=num_tasks, task_seed=task_seed, max_steps=max_rounds)

    def make_gym(self) -> TextGym:
        """Return a new gym, for a task that it draws."""
        return self._made(None)

    def draw_task(self, rng: random.Random) -> JSON:
        """Return a seed."""
        return {"seed": rng.randrange(2**31)}

    def tasks(self, split: str) -> Any:
        """Return the given tasks of a split, or seeds."""
        return super().tasks(split) if self._given is None else split_tasks(self._given, split)

    def begin(self, task: Any) -> tuple[GymState, tuple[Message, ...]]:
        """Make and reset the gym. All texts of its first observation are shown, each once."""
        seed = task["seed"] if self._given is None else 0
        gym, (observation, info) = seeded(seed, lambda: self._opened_gym(task, seed))
        state = _State(gym, _opening(observation), success=info.get("success"))
        return state, (system(self.instructions), user(state.opening))

    def reward(self, is_over: bool) -> Reward | None:
        """Return what the gym gave for the latest action."""
        reward = super().reward(is_over)
        if reward is not None and isinstance(self.state, _State):
            self.state.total += reward.value
        return reward

    def is_success(self) -> bool | None:
        """Say what the rewards say, or what the gym says."""
        if self._success_reward is not None and isinstance(self.state, _State):
            return self.state.total >= self._success_reward
        return super().is_success()

    def expert(self, agent: str) -> Expert:
        """A gym of others has none.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(f"{self._gym_class.__name__} has no expert; use another policy")

    def decide(self, observation: Observation) -> Message:
        """See `expert`."""
        raise ConfigError(f"{self._gym_class.__name__} has no expert; use another policy")

    async def reset(self, task: JSON = None, *, seed: int | None = None) -> Step:
        """Start an episode, in a thread: gyms load data and may ask a model."""
        await self.close()
        return await in_thread(self.open, task, seed)

    async def step(self, actions: Mapping[str, Message]) -> Step:
        """Take the agent's action, in a thread: the user is a model that has to answer."""
        return await in_thread(self.take, actions[AGENT])

    async def close(self) -> None:
        """Close the gym of the episode under way, if any."""
        close = None if self._play is None else getattr(self.state.gym, "close", None)
        await super().close()
        if close is not None:
            await in_thread(close)

    def _opened_gym(self, task: JSON, seed: int) -> tuple[TextGym, tuple[Any, dict[str, Any]]]:
        gym = self._made(task)
        return gym, gym.reset(seed=seed)

    def _made(self, task: JSON) -> TextGym:
        config = self._made_config(task)
        gym: TextGym = self._gym_class(**({} if config is None else {"config": config}), **self._arguments)
        return gym

    def _made_config(self, task: JSON) -> Any:
        """Return the gym's config with the user's settings, for one task where they are given.

        Raises:
            ConfigError: the package has no config, or that has no such setting.
        """
        if self._config is None:
            return None
        module = sys.modules[self._gym_class.__module__]
        places = (module, sys.modules.get(module.__name__.partition(".")[0]))
        make = next((found for place in places if (found := getattr(place, "get_default_config", None))), None)
        if make is None:
            raise ConfigError(f"config: {module.__name__} has no get_default_config; leave config out")
        config = make()
        source = {} if self._given is None or task is None else {"data_mode": "single", "data_source": task}
        for key, value in ({**self._config} | source).items():
            if not hasattr(config, key):
                known = [name for name in vars(config) if name[0] != "_"]
                raise ConfigError(f"config: {type(config).__name__} has no {key!r}.{did_you_mean(key, known)}")
            setattr(config, key, value)
        return config


def _opening(observation: Any) -> str:
    """Return the texts of a first observation."""
    if not isinstance(observation, Mapping):
        return observation_text(observation)
    texts = dict.fromkeys(value for value in observation.values() if isinstance(value, str) and value)
    return "\n\n".join(texts) or observation_text(observation)
