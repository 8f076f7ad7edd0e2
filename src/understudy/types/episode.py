"""Turns, trajectories and episodes: what agents did, without loss.

A turn extends the context of its parent turn, so a chat is a chain, a fork is two turns with one parent, and an agent
that rewrites its prompt is a trajectory with several roots. Invariant: joining observations and actions along the way
from a root to a turn gives exactly the messages that the policy saw at that turn.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from understudy.errors import FormatError

from .message import JSON, Message, Tool
from .openai import message_from_openai, message_weight
from .openai_tools import tools_from_openai

SCHEMA_VERSION = 1

ORIGIN = "relabelled_from"
"""Key of an episode's metadata that names the episode whose actions it has, as a success at another task."""

MAX_TOKEN_ID = 2**31 - 1
"""Ids are kept in 32 bits."""


@dataclass(frozen=True, slots=True)
class SampledTokens:
    """The server's own ids of one call. They win over rendering, because they are what the policy really saw and wrote.

    `output_ids` includes the stop token when the server ended the turn with one. `logprobs` has one value (natural
    logarithm) for each output id.
    """

    prompt_ids: tuple[int, ...]
    output_ids: tuple[int, ...]
    logprobs: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        for name, ids in (("prompt_ids", self.prompt_ids), ("output_ids", self.output_ids)):
            for outermost in (min(ids, default=0), max(ids, default=0)):
                if not 0 <= outermost <= MAX_TOKEN_ID:
                    raise ValueError(f"{name}: a token id is a number from 0 to {MAX_TOKEN_ID:,}, not {outermost:,}")


@dataclass(frozen=True, slots=True)
class Turn:
    """One decision of one agent: what it newly observed, and the action it took.

    `parent` is the index, in the same trajectory, of the turn whose context this one extends; None starts afresh.
    `tools` stands on a root turn and holds for all turns below it. `action` None is a closing observation.
    `weight` 0 makes the action context only. `annotations` holds scores, advantages and labels for objectives.

    A *label* is a turn that did not happen: what an expert would have done in the place of another turn, whose sibling
    it is. Its annotation ``label_of`` is that turn's index.
    """

    parent: int | None
    observation: tuple[Message, ...] = ()
    action: Message | None = None
    tools: tuple[Tool, ...] = ()
    reward: float | None = None
    weight: float = 1.0
    sampled: SampledTokens | None = None
    annotations: dict[str, JSON] = field(default_factory=dict)

    @property
    def is_label(self) -> bool:
        """Whether this is a label, and not a turn that happened."""
        return "label_of" in self.annotations


@dataclass(frozen=True, slots=True)
class Transition:
    """One step of one agent: (s, a, s', r).

    `state` is the whole conversation that the action answers, `next_observation` what was newly observed after it, and
    `is_last` whether nothing was done after that.
    """

    state: tuple[Message, ...]
    action: Message
    next_observation: tuple[Message, ...]
    reward: float | None
    is_last: bool


@dataclass(frozen=True, slots=True)
class Trajectory:
    """One agent's turns in the order in which they happened (a parent stands before its children)."""

    turns: tuple[Turn, ...] = ()
    agent: str = "agent"
    policy: str | None = None
    reward: float | None = None
    success: bool | None = None

    def __post_init__(self) -> None:
        for index, turn in enumerate(self.turns):
            if turn.parent is None:
                continue
            if not 0 <= turn.parent < index:
                raise ValueError(f"turns[{index}].parent is {turn.parent}: not an earlier turn")
            if turn.tools:
                raise ValueError(f"turns[{index}].tools: only a root turn (parent None) has tools")

    def lineage(self, turn: int = -1) -> list[int]:
        """Return the indices from the root down to `turn`, both included."""
        index: int | None = range(len(self.turns))[turn]
        path: list[int] = []
        while index is not None:
            path.append(index)
            index = self.turns[index].parent
        return path[::-1]

    def messages(self, turn: int = -1) -> list[Message]:
        """Return the conversation up to and including `turn` (by default the last); empty without turns."""
        if not self.turns:
            return []
        out: list[Message] = []
        for index in self.lineage(turn):
            out.extend(self.turns[index].observation)
            action = self.turns[index].action
            if action is not None:
                out.append(action)
        return out

    def tools(self, turn: int = -1) -> tuple[Tool, ...]:
        """Return the tools that the policy had at `turn`."""
        return self.turns[self.lineage(turn)[0]].tools if self.turns else ()

    def transitions(self) -> Iterator[Transition]:
        """Yield every action with what came before and after it, in the order in which they happened.

        After a context that was rewritten comes what the new one begins with. Labels are no actions that happened.
        """
        happened = [(k, turn) for k, turn in enumerate(self.turns) if not turn.is_label]
        first_child = {turn.parent: k for k, turn in reversed(happened) if turn.parent is not None}
        roots = [k for k, turn in happened if turn.parent is None]
        for k, turn in happened:
            if turn.action is None:
                continue
            after = first_child.get(k, next((root for root in roots if root > k), None))
            yield Transition(
                state=tuple(self.messages(k)[:-1]),
                action=turn.action,
                next_observation=() if after is None else self.turns[after].observation,
                reward=turn.reward,
                is_last=after is None or self.turns[after].action is None,
            )

    def leaves(self) -> list[int]:
        """Return the turns that no other turn extends."""
        parents = {turn.parent for turn in self.turns}
        return [index for index in range(len(self.turns)) if index not in parents]


@dataclass(frozen=True, slots=True)
class Episode:
    """One play of one task. `success` None means unknown; it is never guessed from the reward.

    `created_at` is an ISO 8601 time in UTC. `error` is a fault of the environment, its judge or the machinery,
    never a failure of an agent.
    """

    id: str
    trajectories: tuple[Trajectory, ...] = ()
    environment: str | None = None
    task: JSON = None
    seed: int | None = None
    split: str | None = None
    reward: float | None = None
    success: bool | None = None
    stop_reason: str | None = None
    error: str | None = None
    metadata: dict[str, JSON] = field(default_factory=dict)
    created_at: str | None = None
    schema_version: int = SCHEMA_VERSION

    @classmethod
    def from_messages(
        cls,
        messages: Iterable[Message | Mapping[str, JSON]],
        *,
        id: str | None = None,
        tools: Sequence[Tool | Mapping[str, JSON]] | str | None = (),
        reward: float | None = None,
        success: bool | None = None,
        agent: str = "agent",
        policy: str | None = None,
        weights: Sequence[float] | None = None,
        environment: str | None = None,
        metadata: dict[str, JSON] | None = None,
    ) -> Episode:
        """Make the simple case: one agent, one linear conversation.

        Args:
            messages: ours or OpenAI-style dicts.
            id: by default a hash of messages and tools, so equal conversations have equal ids.
            tools: ours, OpenAI-style dicts, or JSON text of a list of these.
            weights: one weight for each message; those of assistant messages become the turns' weights. By default
                the messages' own flags (`understudy.types.openai.WEIGHT_FLAGS`) are honoured, else 1.

        Raises:
            FormatError: a message or tool has no clear meaning.
        """
        read = [message_from_openai(message, f"messages[{i}]") for i, message in enumerate(messages)]
        read_tools = tools_from_openai(tools)
        turns = turns_from_messages(read, tools=read_tools, weights=weights)
        return cls(
            id=content_hash(read, read_tools) if id is None else id,
            trajectories=(Trajectory(turns, agent=agent, policy=policy),),
            environment=environment,
            reward=reward,
            success=success,
            metadata=metadata or {},
        )

    def turns(self) -> Iterator[tuple[int, int, Turn]]:
        """Yield (trajectory index, turn index, turn) over all trajectories."""
        for t, trajectory in enumerate(self.trajectories):
            for k, turn in enumerate(trajectory.turns):
                yield t, k, turn

    def num_actions(self) -> int:
        """Return how many actions were taken; labels were not."""
        return sum(turn.action is not None and not turn.is_label for _, _, turn in self.turns())


def turns_from_messages(
    messages: Iterable[Message],
    *,
    tools: Sequence[Tool] = (),
    weights: Sequence[float] | None = None,
) -> tuple[Turn, ...]:
    """Cut a linear conversation into turns: every assistant message is an action, what precedes it is observed.

    Trailing messages that no assistant message follows become a closing observation, so nothing is lost.

    Args:
        weights: one for each message; None takes those that the assistant messages' own flags give, else 1.

    Raises:
        FormatError: there are not as many weights as messages, or a message's flags contradict each other.
    """
    messages = list(messages)
    if weights is not None and len(weights) != len(messages):
        raise FormatError(f"{len(weights)} weights for {len(messages)} messages", mend="give one for each message")
    turns: list[Turn] = []
    observed: list[Message] = []

    def close(action: Message | None, weight: float) -> None:
        turns.append(
            Turn(
                parent=len(turns) - 1 if turns else None,
                observation=tuple(observed),
                action=action,
                tools=() if turns else tuple(tools),
                weight=weight,
            )
        )
        observed.clear()

    for index, message in enumerate(messages):
        if message.role == "assistant":
            weight = message_weight(message, f"messages[{index}]") if weights is None else weights[index]
            close(message, 1.0 if weight is None else float(weight))
        else:
            observed.append(message)
    if observed:
        close(None, 1.0)
    return tuple(turns)


def content_hash(messages: Sequence[Message], tools: Sequence[Tool] = ()) -> str:
    """Return 16 hexadecimal digits that stand for a conversation with its tools.

    Raises:
        FormatError: a value in it is nested too deeply.
    """
    try:
        content = [[asdict(message) for message in messages], [tool.definition for tool in tools]]
        text = json.dumps(content, sort_keys=True, default=str)
    except RecursionError:
        raise FormatError("the conversation is nested too deeply") from None
    return hashlib.sha256(text.encode()).hexdigest()[:16]
