"""MRLM's trajectory data sets: observations, actions and rewards, step by step.

Each observation comes before its action, and one more may follow the last. Its messages are taken as what they turn out
to be: the whole conversation so far (then only what is new is kept), the last action and the answer to it, or the
answer alone. They are written whole, because MRLM shows a model nothing but the messages of one observation.

MRLM's role ``environment`` is read as a user message named ``environment``, because chat templates do not know it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from understudy.errors import FormatError
from understudy.types import JSON, Episode, Message, Turn, message_to_row, message_weight, tools_from_openai
from understudy.types.fields import kind
from understudy.types.openai import message_from_openai

from .base import Format
from .episode_fields import put_fields, reward, take_fields, with_tools

_ENVIRONMENT = "environment"


class Trajectories(Format):
    """``{"trajectories": [{"observations": […], "actions": […], "rewards": […], "metadata": {}}], …}``.

    ``state``, ``done`` and ``info`` of an observation stand in `Turn.annotations` under ``observation``; ``components``
    and ``info`` of a reward under ``reward``. The episode's reward is the sum of its rewards where it states none.
    """

    name: ClassVar[str] = "trajectories"
    summary: ClassVar[str] = 'MRLM: {"trajectories": [{"observations", "actions", "rewards", "metadata"}], …}'
    envelope: ClassVar[str | None] = "trajectories"

    def match(self, row: Mapping[str, JSON]) -> str | None:
        items = row.get("trajectories")
        if not isinstance(items, list) or not items or not isinstance(items[0], dict):
            return None
        found = all(isinstance(items[0].get(key), list) for key in ("observations", "actions"))
        return "'trajectories' holds observations and actions" if found else None

    def read_row(self, row: Mapping[str, JSON], id: str) -> list[Episode]:
        items = row.get("trajectories")
        if not isinstance(items, list | tuple):
            raise FormatError(f"the trajectories are a list, not {kind(items)}", field="trajectories")
        episodes = []
        for i, item in enumerate(items):
            try:
                episodes.append(_read(item, f"{id}/{i}" if i else id))
            except FormatError as error:
                raise error.at(field=f"trajectories[{i}]") from None
        return episodes

    def write_row(self, episode: Episode) -> dict[str, JSON]:
        item = _write(episode)
        return {"trajectories": [item], "num_trajectories": 1, "num_transitions": len(item["actions"])}


def _read(item: JSON, id: str) -> Episode:
    if not isinstance(item, Mapping):
        raise FormatError(f"a trajectory is an object, not {kind(item)}")
    rest = dict(item)
    observations, actions, rewards = (_list(rest, key) for key in ("observations", "actions", "rewards"))
    if not len(actions) <= len(observations) <= len(actions) + 1 or not observations:
        mend = "there is one observation before each action, and at most one after the last"
        reason = f"{len(observations)} observations for {len(actions)} actions"
        raise FormatError(reason, field="observations", mend=mend)
    if len(rewards) not in (0, len(actions)):
        raise FormatError(f"{len(rewards)} rewards for {len(actions)} actions", field="rewards")
    turns: list[Turn] = []
    seen: list[Message] = []
    for i, observation in enumerate(observations):
        new, annotations = _read_observation(observation, seen, f"observations[{i}]", is_last=i == len(actions))
        action, value = None, None
        if i < len(actions):
            action = _read_message(actions[i], f"actions[{i}]", default_role="assistant")
        if i < len(rewards):
            value, details = _read_reward(rewards[i], f"rewards[{i}]")
            annotations |= details
        if action is None and not new and not annotations and turns:
            continue
        weight = 1.0 if action is None or (own := message_weight(action)) is None else own
        turns.append(
            Turn(i - 1 if i else None, tuple(new), action, reward=value, weight=weight, annotations=annotations)
        )
        seen += [*new, action] if action is not None else new
    turns = list(with_tools(tuple(turns), tools_from_openai(rest.pop("tools", None))))
    is_stated = "reward" in rest
    episode = take_fields(rest, id).build(tuple(turns))
    return episode if is_stated or episode.reward is not None else replace(episode, reward=_total(turns))


def _write(episode: Episode) -> dict[str, Any]:
    trajectory = episode.trajectories[0]
    observations: list[JSON] = []
    actions: list[JSON] = []
    rewards: list[JSON] = []
    seen: list[Message] = []
    for k, turn in enumerate(trajectory.turns):
        seen += turn.observation
        is_last = k == len(trajectory.turns) - 1
        if turn.action is None and not is_last:
            continue
        details = _details(turn.annotations.get("observation"), but="messages")
        messages = [_write_message(one) for one in seen]
        observations.append({"messages": messages, "state": None, "done": turn.action is None, "info": {}} | details)
        if turn.action is not None:
            actions.append(_write_message(turn.action, turn.weight))
            noted = _details(turn.annotations.get("reward"), but="value")
            rewards.append({"value": turn.reward, "components": {}, "info": {}} | noted)
            seen.append(turn.action)
    fields = put_fields(episode)
    if episode.reward is None and _total(trajectory.turns) is not None:
        fields["reward"] = None
    tools = [tool.definition for tool in trajectory.tools()]
    item = {"observations": observations, "actions": actions, "rewards": rewards}
    return item | ({"tools": tools} if tools else {}) | fields


def _details(noted: JSON, but: str) -> dict[str, JSON]:
    """Return what an annotation notes beside the key that has a place of its own."""
    return {key: value for key, value in noted.items() if key != but} if isinstance(noted, dict) else {}


def _read_observation(
    value: JSON, seen: Sequence[Message], field: str, *, is_last: bool
) -> tuple[list[Message], dict[str, JSON]]:
    """Return the messages that are new after `seen`, and the annotations: what is not as it is by default."""
    if not isinstance(value, Mapping):
        raise FormatError(f"an observation is an object, not {kind(value)}", field=field)
    rest = dict(value)
    given = _list(rest, "messages", field)
    messages = [_read_message(one, f"{field}.messages[{k}]") for k, one in enumerate(given)]
    for known in (seen, seen[-1:]):
        if known and len(known) <= len(messages) and all(map(_repeats, messages, known)):
            messages = messages[len(known) :]
            break
    kept = _without_defaults(rest, {"state": None, "done": is_last, "info": {}})
    return messages, {"observation": kept} if kept else {}


def _without_defaults(noted: Mapping[str, JSON], defaults: Mapping[str, JSON]) -> dict[str, JSON]:
    return {key: value for key, value in noted.items() if key not in defaults or value != defaults[key]}


def _repeats(message: Message, earlier: Message) -> bool:
    """Say whether a message is one shown before; what the source noted beside it may differ."""
    return replace(message, extra={}) == replace(earlier, extra={})


def _read_reward(value: JSON, field: str) -> tuple[float | None, dict[str, JSON]]:
    if not isinstance(value, Mapping):
        return reward(value, field), {}
    rest = dict(value)
    number = reward(rest.pop("value", None), f"{field}.value")
    kept = _without_defaults(rest, {"components": {}, "info": {}})
    return number, {"reward": kept} if kept else {}


def _read_message(value: JSON, field: str, default_role: str | None = None) -> Message:
    message = message_from_openai(value, field, default_role=default_role)
    if message.role == _ENVIRONMENT and message.name is None:
        return replace(message, role="user", name=_ENVIRONMENT)
    return message


def _write_message(message: Message, weight: float | None = None) -> dict[str, JSON]:
    row = message_to_row(message, weight)
    if row["role"] == "user" and row.get("name") == _ENVIRONMENT:
        del row["name"]
        row["role"] = _ENVIRONMENT
    return row


def _list(rest: dict[str, JSON], key: str, field: str = "") -> list[JSON]:
    value = rest.pop(key, None)
    if not isinstance(value, list | tuple):
        place = f"{field}.{key}" if field else key
        raise FormatError(f"expected a list, not {kind(value)}", field=place)
    return list(value)


def _total(turns: Sequence[Turn]) -> float | None:
    values = [turn.reward for turn in turns if turn.reward is not None]
    return sum(values) if values else None
