"""Classes with the shape of MRLM's: its types, and environments that answer in each of the ways that its own do."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from enum import Enum
from typing import Any


class MessageRole(Enum):
    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    ENVIRONMENT = "environment"


@dataclass
class Message:
    role: MessageRole | str
    content: str
    metadata: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.role = MessageRole(self.role)


@dataclass
class Observation:
    messages: list[Message]
    state: dict[str, Any] | None = None
    done: bool = False
    info: dict[str, Any] = field(default_factory=dict)


@dataclass
class Reward:
    value: float
    components: dict[str, float] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)


class Sums:
    """Two attempts at a sum that is drawn from the global generator.

    Args:
        shows: what an observation after an action holds: ``answer``, ``pair`` (the action too), ``all``,
            ``system`` (the answer in that role), or ``anew``.
    """

    def __init__(self, shows: str = "pair", largest: int = 99) -> None:
        self.shows, self.largest = shows, largest
        self.is_closed = False

    def reset(self) -> Observation:
        self.numbers = [random.randint(0, self.largest) for _ in range(2)]
        self.attempts = 0
        question = f"{self.numbers[0]} + {self.numbers[1]}?"
        self.messages = [Message("system", "You add."), Message("user", question)]
        return Observation(list(self.messages), state={"numbers": self.numbers})

    def step(self, action: Message) -> tuple[Observation, Reward]:
        assert action.role == MessageRole.ASSISTANT
        self.attempts += 1
        is_right = action.content == str(sum(self.numbers))
        answer = Message(MessageRole.ENVIRONMENT, "right" if is_right else "wrong")
        self.messages += [action, answer]
        shown = {
            "answer": [answer],
            "pair": [action, answer],
            "all": list(self.messages),
            "system": [Message("system", answer.content)],
            "anew": [Message("system", "You add."), Message("user", f"You said {action.content}: {answer.content}.")],
        }
        reward = Reward(1.0 if is_right else -0.5, {"right": float(is_right)}, {"is_correct": is_right})
        done = is_right or self.attempts == 2
        return Observation(shown[self.shows], done=done, info={"correct": is_right}), reward

    def close(self) -> None:
        self.is_closed = True


class Endless(Sums):
    def step(self, action: Message) -> tuple[Observation, Reward]:
        return Observation([Message("environment", "go on")]), Reward(0.0)


class OldGym(Sums):
    def step(self, action: Message) -> Any:
        return super().step(action)[0]


class Rewriting(Sums):
    """Shows the whole conversation, without a system message and with tidied actions."""

    def reset(self) -> Observation:
        super().reset()
        del self.messages[0]
        return Observation(list(self.messages))

    def step(self, action: Message) -> tuple[Observation, Reward]:
        self.shows = "all"
        return super().step(Message("assistant", action.content.strip()))


class Exhausted(Sums):
    def step(self, action: Message) -> Any:
        return next(iter(()))
