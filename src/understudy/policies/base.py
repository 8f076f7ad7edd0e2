"""What a policy is: something that decides one turn of one agent.

One policy object serves many episodes at once. What it needs to know of one episode it takes in `Policy.for_episode`,
which returns the object that acts there; a policy without such needs returns itself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from understudy.environments import Environment, Observation
from understudy.errors import PolicyError
from understudy.types import JSON, Message, SampledTokens, Tool


class ContextLengthExceeded(PolicyError):
    """The conversation has become longer than the model can take. The episode is cut short; nobody is at fault."""


@dataclass(frozen=True, slots=True)
class EpisodeStart:
    """What is known of an episode before it begins.

    Args:
        environment: the environment that it is played in; an expert reads its state.
        agent: the agent that the policy decides for.
        task: the task, None where the environment draws one.
        seed: of the environment.
        sample: which play of the same task this is, counted from 0.
        id: the episode's id.
    """

    environment: Environment
    agent: str
    task: JSON = None
    seed: int | None = None
    sample: int = 0
    id: str = ""


@dataclass(frozen=True, slots=True)
class Context:
    """All that a policy may look at when it decides one turn.

    Args:
        messages: the conversation so far, the new messages included.
        tools: the tools that can be called now.
        observation: what is new.
        turn: how many actions the agent has taken before.
        seed: for random choices; different for every turn of every episode, and the same when it is played again.
    """

    messages: tuple[Message, ...]
    tools: tuple[Tool, ...]
    observation: Observation
    turn: int
    seed: int


@dataclass(frozen=True, slots=True)
class Usage:
    """What a turn cost, in tokens. None where it is unknown."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Action:
    """What a policy decided.

    Args:
        message: the action itself, role ``assistant``.
        sampled: the server's own token ids, where it gives them.
        usage: what it cost.
        annotations: what else is worth recording, such as ``finish_reason``.
        label: what an expert would have done here. It is trained in place of the action, which is then context only.
        is_context: the action is not to be trained, and nothing in its place.
    """

    message: Message
    sampled: SampledTokens | None = None
    usage: Usage | None = None
    annotations: dict[str, JSON] = field(default_factory=dict)
    label: Message | None = None
    is_context: bool = False


class Policy(ABC):
    """Decides for agents. Subclasses give `act`, and `for_episode` where they keep something for each episode."""

    name: str = "policy"

    def identity(self) -> JSON:
        """Return what tells this policy from others of its class: it goes into the ids of episodes.

        Where the policy runs and how fast is left out, so that a collection can go on elsewhere.
        """
        return {"name": self.name}

    def for_episode(self, start: EpisodeStart) -> Policy:
        """Return the policy that acts in one episode."""
        return self

    @abstractmethod
    async def act(self, context: Context) -> Action:
        """Decide one turn.

        Raises:
            PolicyError: it cannot decide. That ends the episode, and is no failure of the agent.
        """

    async def close(self) -> None:  # noqa: B027 (most policies hold nothing)
        """Let go of connections and memory."""


def with_call_ids(message: Message, context: Sequence[Message]) -> Message:
    """Return the message with an id on every call that has none: ``call00000`` and so on, counted over the context.

    Nine letters and digits, because some chat templates take no other ids.
    """
    if all(call.id is not None for call in message.tool_calls):
        return message
    number = sum(len(earlier.tool_calls) for earlier in context)
    calls = tuple(
        call if call.id is not None else replace(call, id=f"call{number + i:05d}")
        for i, call in enumerate(message.tool_calls)
    )
    return replace(message, tool_calls=calls)
