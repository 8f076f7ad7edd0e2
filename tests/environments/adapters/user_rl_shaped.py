"""A gym with the shape of UserRL's: made with a config object, acted in by texts, answering with five-tuples."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

RIDDLES = {f"riddle-{n}": str(n) for n in range(30)}


@dataclass
class Config:
    max_steps: int = 5
    data_mode: str = "random"
    data_source: str | None = None
    right_reward: float = 1.0


def get_default_config() -> Config:
    return Config()


class RiddleEnv:
    num_open = 0

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or get_default_config()

    def reset(self, seed: int | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
        if seed is not None:
            random.seed(seed)
        type(self).num_open += 1
        is_given = self.config.data_mode == "single"
        self.riddle = str(self.config.data_source) if is_given else random.choice(list(RIDDLES))
        self.num_steps = 0
        opening = {"task_description": f"Guess {self.riddle}.", "goal": "Guess.", "feedback": "Guess.", "step_count": 0}
        return opening, {"task_id": self.riddle}

    def step(self, action: str) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        self.num_steps += 1
        is_right = action == f"[answer] {RIDDLES[self.riddle]}"
        reward = self.config.right_reward if is_right else 0.0
        is_cut = self.num_steps >= self.config.max_steps
        return {"feedback": "yes" if is_right else "no", "step_count": self.num_steps}, reward, is_right, is_cut, {}

    def close(self) -> None:
        type(self).num_open -= 1


class Plain:
    """A gym without a config, that says itself whether it is solved."""

    def reset(self, seed: int | None = None) -> tuple[str, dict[str, Any]]:
        return f"seed {seed}", {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        return "over", 0.25, True, False, {"success": "yes" in action}
