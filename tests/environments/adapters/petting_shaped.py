"""Classes with the shape of PettingLLMs': an environment, its batch, and two agents that share its state."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

PROBLEMS = [{"problem": f"{n} * 3", "answer": str(3 * n)} for n in range(30)]


@dataclass
class State:
    problem: str | None = None
    answer: str | None = None
    drafts: list[str] = field(default_factory=list)


class Env:
    def __init__(self, env_idx: int, rollout_idx: int, max_turns: int, config: Any = None) -> None:
        self.env_idx, self.config = env_idx, config
        self.state = State()
        self.done = self.success = False


class DrawingEnv(Env):
    """Draws its problem itself."""

    def reset(self) -> None:
        self.state = State(**random.choice(PROBLEMS))


class EnvBatch:
    """Holds environments for problems of a data set that it loads itself."""

    def __init__(
        self,
        env_idx_list: list[int],
        env_indices: list[int],
        rollout_idx_list: list[int],
        samples: int,
        max_turns: int,
        config: Any,
        mode: str = "train",
    ) -> None:
        assert (config.env.benchmark, config["env"]["benchmark"], mode) == ("threes", "threes", "train")
        self.env_list = []
        for index in env_indices:
            env = Env(index, rollout_idx_list[0], max_turns, config)
            env.state = State(**PROBLEMS[index])
            self.env_list.append(env)


class Agent:
    def __init__(self, rollout_idx: int | None = None, **others: Any) -> None:
        self.current_prompt: Any = {"text": None, "image": None}
        self.current_action: Any = None
        self.agent_reward = 0.0
        self.success = False
        self.skip_current_turn = False


class Drafter(Agent):
    """Is told the turn, acts asynchronously, and sits the last turn out."""

    def update_from_env(self, turn_idx: int, env_data: Env) -> None:
        self.skip_current_turn = turn_idx == 2
        self.current_prompt = {"text": f"Turn {turn_idx}: draft {env_data.state.problem}.", "image": None}

    def update_from_model(self, response: str) -> str:
        self.current_action = response.strip()
        return self.current_action

    async def step(self, env_data: Env, env_worker: Any = None) -> None:
        env_data.state.drafts.append(self.current_action)

    def calculate_reward(self, env_data: Env) -> None:
        self.agent_reward = 0.1 * len(env_data.state.drafts)


class Checker(Agent):
    """Is not told the turn, writes a system prompt, and acts in place."""

    def update_from_env(self, env_data: Env) -> None:
        self.current_prompt = {"system": "You check.", "text": f"{env_data.state.problem} = {env_data.state.drafts}?"}

    def update_from_model(self, response: str) -> None:
        self.current_action = response.strip()

    def step(self, env_data: Env) -> None:
        self.success = env_data.success = self.current_action == env_data.state.answer
        env_data.done = self.success
        self.agent_reward = float(self.success)


class Artist(Agent):
    def update_from_env(self, turn_idx: int, env_data: Env) -> None:
        self.current_prompt = {"text": "look", "image": "data:image/png;base64,"}
