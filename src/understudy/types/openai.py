"""Messages and tools as the world writes them, read into ours: tolerant, and never silent.

`message_from_openai` takes every spelling of an OpenAI-style chat message that real data holds. What has one clear
meaning is read; what has none is refused with the exact field and the mend. Keys that a `Message` has no field for
stand in `Message.extra` under their own name; those of a part or a call stand under its place (``content[0]``,
``tool_calls[1]``). `message_to_row` puts them all back.

Three spellings are brought to the modern one, because templates know no other: ``function_call`` becomes a tool call,
role ``function`` becomes ``tool``, and a single leading reasoning part becomes ``reasoning_content``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from understudy.errors import FormatError

from .fields import is_finite_number, join, kind, optional_text, parse_json
from .message import JSON, ImagePart, Message, Part, ReasoningPart, TextPart, ToolCall
from .openai_tools import tools_from_openai as tools_from_openai

WEIGHT_FLAGS = ("weight", "loss_weight", "loss", "training", "trainable")
"""Keys by which sources say how much one message counts in the loss."""

_REASONING_KEYS = ("reasoning_content", "reasoning", "thinking")
_TEXT_PARTS = ("text", "input_text", "output_text")
_IMAGE_PARTS = ("image_url", "image", "input_image")
_REASONING_PARTS = ("reasoning", "thinking")
_CALL_PARTS = ("tool_call", "tool_use", "function_call")
_ARGUMENT_KEYS = ("arguments", "args", "parameters", "input")


def message_from_openai(value: JSON, field: str = "", *, default_role: str | None = None) -> Message:
    """Read one message.

    Args:
        value: the dict; a `Message` is returned as it is.
        field: where it stands in its row, for errors.
        default_role: the role of a message that names none; None refuses it.

    Raises:
        FormatError: it has no clear meaning.
    """
    if isinstance(value, Message):
        return value
    if not isinstance(value, Mapping):
        raise FormatError(f"a message is an object, not {kind(value)}", field=field)
    rest = dict(value)
    role = rest.pop("role", None) or default_role
    if not isinstance(role, str) or not role:
        raise FormatError(
            "a message needs a role", field=join(field, "role"), mend='add "role", for instance "user" or "assistant"'
        )
    extra: dict[str, JSON] = {}
    reasoning = _reasoning(rest, field)
    content, reasoning, calls = _content(rest.pop("content", None), reasoning, join(field, "content"), extra)
    calls += _tool_calls(rest, field, extra, start=len(calls))
    message = Message(
        role="tool" if role == "function" else role,
        content=content,
        reasoning_content=reasoning,
        tool_calls=tuple(calls),
        tool_call_id=_identifier(rest.pop("tool_call_id", None), join(field, "tool_call_id")),
        name=optional_text(rest.pop("name", None), join(field, "name")),
        extra=rest | extra if extra else rest,
    )
    if message.role == "assistant" and message.extra:
        message_weight(message, field)
    return message


def messages_from_openai(value: JSON, field: str = "messages", *, default_role: str | None = None) -> list[Message]:
    """Read a list of messages, given as a list or as JSON text of one."""
    if isinstance(value, str):
        value = parse_json(value, field, "messages")
    if not isinstance(value, list | tuple):
        raise FormatError(f"messages are a list, not {kind(value)}", field=field)
    return [message_from_openai(one, f"{field}[{i}]", default_role=default_role) for i, one in enumerate(value)]


def message_weight(message: Message, field: str = "") -> float | None:
    """Return the weight that the message's own flags give it in the loss; None when it has no flag.

    A boolean flag means 0 or 1. Several flags may stand together when they agree: a number beside true wins.

    Raises:
        FormatError: a flag is no finite number from 0 up, or two flags contradict each other.
    """
    weights: dict[str, float] = {}
    for flag in WEIGHT_FLAGS:
        value = message.extra.get(flag)
        if value is None:
            continue
        if not is_finite_number(value) or value < 0:
            mend = "write a number from 0 up, or true or false; negative signals belong in rewards or advantages"
            raise FormatError(
                f"a weight is a finite number from 0 up, not {value!r}", field=join(field, flag), mend=mend
            )
        weights[flag] = float(value)
    if not weights:
        return None
    numbers = {float(w) for flag, w in weights.items() if not isinstance(message.extra[flag], bool)}
    distinct = numbers or set(weights.values())
    if len(distinct) > 1 or len({bool(w) for w in weights.values()}) > 1:
        raise FormatError(f"the flags {weights} contradict each other", field=field, mend="keep one of them")
    return distinct.pop()


def message_to_row(message: Message, weight: float | None = None) -> dict[str, JSON]:
    """Return the dict that `message_from_openai` reads back to an equal message, `extra` included.

    Args:
        weight: the message's weight in the loss. It is written when the flags in `extra` do not already say it.
    """
    row = message.to_openai()
    for key, value in message.extra.items():
        target = _extra_target(row, key)
        if target is None:
            row.setdefault(key, value)
        elif "function" in value and "function" in target:
            target.update(value | {"function": target["function"] | value["function"]})
        else:
            target.update(value)
    if weight is not None and weight != _default_one(message_weight(message)):
        for flag in WEIGHT_FLAGS:
            row.pop(flag, None)
        row["weight"] = weight
    return row


def _reasoning(rest: dict[str, JSON], field: str) -> str | None:
    found: str | None = None
    for key in _REASONING_KEYS:
        if key not in rest:
            continue
        value = optional_text(rest.pop(key), join(field, key))
        if value is None:
            continue
        if found is not None and value != found:
            raise FormatError(
                "two different reasoning texts in one message", field=join(field, key), mend="keep one of them"
            )
        found = value
    return found


def _content(
    value: JSON, reasoning: str | None, field: str, extra: dict[str, JSON]
) -> tuple[str | tuple[Part, ...] | None, str | None, list[ToolCall]]:
    """Return (content, reasoning, tool calls that stood as parts); keys of parts without a field go to `extra`."""
    if value is None or isinstance(value, str):
        return value, reasoning, []
    if not isinstance(value, list | tuple):
        mend = "write text, null or a list of parts; give an object as JSON text"
        raise FormatError(f"content is text, null or a list of parts, not {kind(value)}", field=field, mend=mend)
    parts: list[Part] = []
    leftovers: list[dict[str, JSON]] = []
    calls: list[ToolCall] = []
    for i, item in enumerate(value):
        place = f"{field}[{i}]"
        if isinstance(item, Mapping) and item.get("type") in _CALL_PARTS:
            call, rest = _call_part(item, place)
            if rest:
                extra[f"tool_calls[{len(calls)}]"] = rest
            calls.append(call)
            continue
        if calls:
            raise FormatError(
                "a part stands after a tool call", field=place, mend="put tool calls after all other parts"
            )
        part, rest = _part(item, place)
        parts.append(part)
        leftovers.append(rest)
    if reasoning is None and [isinstance(part, ReasoningPart) for part in parts[:2]] in ([True], [True, False]):
        reasoning = parts.pop(0).text  # type: ignore[union-attr]
        first = leftovers.pop(0)
        if first:
            extra["reasoning_part"] = first
    extra.update({f"content[{i}]": rest for i, rest in enumerate(leftovers) if rest})
    if not parts:
        return None, reasoning, calls
    if len(parts) == 1 and isinstance(parts[0], TextPart) and not leftovers[0]:
        return parts[0].text, reasoning, calls
    return tuple(parts), reasoning, calls


def _part(value: JSON, field: str) -> tuple[Part, dict[str, JSON]]:
    """Return the part and those of its keys that it has no field for."""
    if isinstance(value, str):
        return TextPart(value), {}
    if not isinstance(value, Mapping):
        raise FormatError(f"a part is an object or text, not {kind(value)}", field=field)
    rest = dict(value)
    part_type = rest.pop("type", None)
    if part_type is None:
        part_type = "text" if "text" in rest else "image_url" if "image_url" in rest else None
    if part_type in _TEXT_PARTS:
        return TextPart(_part_text(rest, ("text", "value"), field)), rest
    if part_type in _REASONING_PARTS:
        return ReasoningPart(_part_text(rest, ("text", "value", "thinking", "reasoning"), field)), rest
    if part_type in _IMAGE_PARTS:
        return _image(rest, field), rest
    mend = "parts of type text, image_url, reasoning and tool_call are known; declare a field mapping for others"
    raise FormatError(f"unknown part type {part_type!r}", field=join(field, "type"), mend=mend)


def _part_text(rest: dict[str, JSON], keys: Iterable[str], field: str) -> str:
    for key in keys:
        if rest.get(key) is not None:
            value = rest.pop(key)
            if not isinstance(value, str):
                raise FormatError(f"expected text, not {kind(value)}", field=join(field, key))
            return value
    raise FormatError("a part needs its text", field=field, mend='write {"type": "text", "text": …}')


def _image(rest: dict[str, JSON], field: str) -> ImagePart:
    source = next(
        (rest.pop(key) for key in ("image_url", "value", "url", "image", "path", "source") if rest.get(key)), None
    )
    detail = rest.pop("detail", None)
    if isinstance(source, Mapping):
        detail = source.get("detail", detail)
        if source.get("type") == "base64":
            source = f"data:{source.get('media_type', 'image/png')};base64,{source.get('data')}"
        else:
            source = source.get("url")
    if not isinstance(source, str):
        raise FormatError(
            "an image needs a URL, a data URL or a path",
            field=field,
            mend='write {"type": "image_url", "image_url": {"url": …}}',
        )
    return ImagePart(source, optional_text(detail, join(field, "detail")))


def _call_part(value: Mapping[str, JSON], field: str) -> tuple[ToolCall, dict[str, JSON]]:
    inner = next((value[key] for key in ("value", "text", "tool_call") if value.get(key) is not None), None)
    if isinstance(inner, str):
        inner = parse_json(inner, join(field, "value"), "a tool call")
    call = dict(inner) if isinstance(inner, Mapping) else {k: v for k, v in value.items() if k != "type"}
    return _tool_call(call, field)


def _tool_calls(rest: dict[str, JSON], field: str, extra: dict[str, JSON], *, start: int) -> list[ToolCall]:
    """Take ``tool_calls`` and the legacy ``function_call`` out of `rest`."""
    value, place = rest.pop("tool_calls", None), join(field, "tool_calls")
    if isinstance(value, str):
        value = parse_json(value, place, "tool calls") if value.strip() else None
    if value is not None and not isinstance(value, list | tuple):
        raise FormatError(f"tool calls are a list, not {kind(value)}", field=place)
    legacy = rest.pop("function_call", None)
    if legacy and value:
        raise FormatError(
            "both tool_calls and function_call", field=join(field, "function_call"), mend="keep one of them"
        )
    if legacy:
        value, place = [legacy], join(field, "function_call")
    calls = []
    for i, item in enumerate(value or ()):
        call, leftover = _tool_call(item, place if legacy else f"{place}[{i}]")
        if leftover:
            extra[f"tool_calls[{start + i}]"] = leftover
        calls.append(call)
    return calls


def _tool_call(value: JSON, field: str) -> tuple[ToolCall, dict[str, JSON]]:
    """Return the call and those of its keys that it has no field for."""
    if isinstance(value, str):
        value = parse_json(value, field, "a tool call")
    if not isinstance(value, Mapping):
        raise FormatError(f"a tool call is an object, not {kind(value)}", field=field)
    rest = dict(value)
    call_id = _identifier(rest.pop("id", None), join(field, "id"))
    if rest.get("type") in ("function", "tool_call", None):
        rest.pop("type", None)
    function = rest.pop("function", None)
    inner, place = (rest, field) if function is None else (function, join(field, "function"))
    if isinstance(function, str):
        rest["name"] = function
        inner = rest
    if not isinstance(inner, Mapping):
        raise FormatError(f"expected an object, not {kind(inner)}", field=place)
    inner = inner if inner is rest else dict(inner)
    name = inner.pop("name", None)
    if not isinstance(name, str):
        raise FormatError("a tool call needs a name", field=join(place, "name"))
    key = next((key for key in _ARGUMENT_KEYS if key in inner), "arguments")
    arguments = _arguments(inner.pop(key, None), join(place, key))
    if inner is not rest and inner:
        rest["function"] = inner
    return ToolCall(name, arguments, call_id), rest


def _arguments(value: JSON, field: str) -> str | dict[str, JSON]:
    """Return arguments text verbatim, an object as it is, ``{}`` for none; JSON text of JSON text is unwrapped."""
    if value is None:
        return {}
    if isinstance(value, dict):
        return value
    if not isinstance(value, str):
        raise FormatError(f"arguments are an object or JSON text, not {kind(value)}", field=field)
    text = value
    while text.lstrip()[:1] == '"':
        try:
            inner = json.loads(text, strict=False)
        except (ValueError, RecursionError):
            return value
        if not isinstance(inner, str):
            return value
        text = inner
    return text if text.lstrip()[:1] == "{" else value


def _extra_target(row: dict[str, JSON], key: str) -> dict[str, JSON] | None:
    """Return the part or call of `row` that an extra key such as ``content[0]`` belongs to."""
    name, bracket, index = key.partition("[")
    if name not in ("content", "tool_calls") or not bracket:
        return None
    items = row.get(name)
    place = index.removesuffix("]")
    if not isinstance(items, list) or not place.isdigit() or int(place) >= len(items):
        return None
    return items[int(place)]  # type: ignore[no-any-return]


def _identifier(value: JSON, field: str) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return optional_text(value, field)


def _default_one(weight: float | None) -> float:
    return 1.0 if weight is None else weight
