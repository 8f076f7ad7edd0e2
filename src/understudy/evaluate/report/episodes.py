"""Episodes as the page shows them: message by message, what is common to both sides once."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from understudy.types import Episode, ImagePart, Message, Tool, ToolCall, Trajectory, Turn

MAX_CHARACTERS = 20_000
"""So much of a text is shown; how much more there is, is said."""

FOLDED_CHARACTERS = 1_500
"""Longer texts are folded, with their beginning in sight."""


@dataclass(frozen=True, slots=True)
class Text:
    """A text, and its beginning where it is to be folded."""

    whole: str
    beginning: str | None = None


@dataclass(frozen=True, slots=True)
class ShownMessage:
    """One message.

    Args:
        role: with the name, where it has one.
        css: its class: ``system``, ``user``, ``assistant``, ``tool`` or ``other``.
        calls: name and arguments of each tool call.
        reward: of the turn, on its action.
        notes: what else is worth knowing, such as that it was cut.
    """

    role: str
    css: str
    text: Text | None
    reasoning: Text | None
    calls: tuple[tuple[str, Text], ...]
    reward: float | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ShownTrajectory:
    """What one agent saw and did; `breaks` says at which messages its context does not simply go on, and how."""

    agent: str
    policy: str | None
    tools: tuple[tuple[str, str], ...]
    messages: tuple[ShownMessage, ...]
    breaks: Mapping[int, str]


@dataclass(frozen=True, slots=True)
class ShownEpisode:
    """One episode."""

    success: bool | None
    reward: float | None
    num_turns: int
    stop_reason: str | None
    error: str | None
    trajectories: tuple[ShownTrajectory, ...]


@dataclass(frozen=True, slots=True)
class SideBySide:
    """Two episodes of one task; what both begin with stands in `common` and in neither of them."""

    common: tuple[ShownMessage, ...]
    tools: tuple[tuple[str, str], ...]
    before: ShownEpisode | None
    after: ShownEpisode


def side_by_side(before: Episode | None, after: Episode) -> SideBySide:
    """Prepare the episodes of a task, or the one there is."""
    shown, earlier = _episode(after), _episode(before) if before is not None else None
    if len(shown.trajectories) != 1 or (earlier is not None and len(earlier.trajectories) != 1):
        return SideBySide((), (), earlier, shown)
    sides = [shown.trajectories[0]] + ([earlier.trajectories[0]] if earlier is not None else [])
    if any(side.tools != sides[0].tools for side in sides):
        return SideBySide((), (), earlier, shown)
    num = _num_common([side.messages for side in sides])
    return SideBySide(
        common=sides[0].messages[:num],
        tools=sides[0].tools,
        before=_without(earlier, num) if earlier is not None else None,
        after=_without(shown, num),
    )


def _num_common(sides: Sequence[Sequence[ShownMessage]]) -> int:
    """Return how many messages all sides begin with in common, up to the first action."""
    num = 0
    for messages in zip(*sides, strict=False):
        if messages[0].css == "assistant" or any(message != messages[0] for message in messages):
            break
        num += 1
    return num


def _without(episode: ShownEpisode, num: int) -> ShownEpisode:
    """Return an episode without its first messages and its tools, which stand above it."""
    (only,) = episode.trajectories
    breaks = {place - num: text for place, text in only.breaks.items()}
    shorter = ShownTrajectory(only.agent, only.policy, (), only.messages[num:], breaks)
    return ShownEpisode(
        episode.success, episode.reward, episode.num_turns, episode.stop_reason, episode.error, (shorter,)
    )


def _episode(episode: Episode) -> ShownEpisode:
    return ShownEpisode(
        success=episode.success,
        reward=episode.reward,
        num_turns=episode.num_actions(),
        stop_reason=episode.stop_reason,
        error=episode.error,
        trajectories=tuple(map(_trajectory, episode.trajectories)),
    )


def _trajectory(trajectory: Trajectory) -> ShownTrajectory:
    messages: list[ShownMessage] = []
    breaks: dict[int, str] = {}
    for number, turn in enumerate(trajectory.turns):
        if turn.parent != (number - 1 if number else None):
            fresh = turn.parent is None
            breaks[len(messages)] = "a fresh context" if fresh else f"goes on from turn {turn.parent}"
        messages.extend(_turn(turn))
    tools = {tool.name: tool for turn in trajectory.turns for tool in turn.tools}
    return ShownTrajectory(
        trajectory.agent,
        trajectory.policy,
        tuple((name, _declaration(tool)) for name, tool in tools.items()),
        tuple(messages),
        breaks,
    )


def _turn(turn: Turn) -> Iterator[ShownMessage]:
    for message in turn.observation:
        yield _message(message)
    if turn.action is not None:
        is_cut = turn.annotations.get("finish_reason") == "length"
        notes = ("cut at the limit of new tokens",) if is_cut else ()
        yield _message(turn.action, reward=turn.reward, notes=notes)


def _message(message: Message, *, reward: float | None = None, notes: tuple[str, ...] = ()) -> ShownMessage:
    css = message.role if message.role in ("system", "user", "assistant", "tool") else "other"
    return ShownMessage(
        role=message.role + (f" · {message.name}" if message.name else ""),
        css=css,
        text=_text(_content(message)),
        reasoning=_text(message.reasoning_content or ""),
        calls=tuple((call.name, _text(_arguments(call)) or Text("")) for call in message.tool_calls),
        reward=reward,
        notes=notes,
    )


def _content(message: Message) -> str:
    if not isinstance(message.content, tuple):
        return message.content or ""
    return "".join(_image(part) if isinstance(part, ImagePart) else part.text for part in message.content)


def _image(part: ImagePart) -> str:
    return f"[image {part.url[:80]}{'…' if len(part.url) > 80 else ''}]"


def _arguments(call: ToolCall) -> str:
    """Return a call's arguments, set out over lines where they are many."""
    try:
        arguments = call.parsed_arguments()
    except ValueError:
        return call.arguments_text()
    flat = ", ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in arguments.items())
    return flat if len(flat) <= 100 else json.dumps(arguments, ensure_ascii=False, indent=2)


def _declaration(tool: Tool) -> str:
    parameters = ", ".join(tool.parameters.get("properties") or {})
    return f"({parameters})" + (f": {tool.description}" if tool.description else "")


def _text(text: str) -> Text | None:
    if not text.strip():
        return None
    more = len(text) - MAX_CHARACTERS
    whole = text if more <= 0 else f"{text[:MAX_CHARACTERS]}\n… {more:,} more characters"
    return Text(whole, text[:200].rstrip() + " …" if len(text) > FOLDED_CHARACTERS else None)
