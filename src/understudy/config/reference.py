"""The keys of a config class as text: a Markdown table for the docs, plain lines for ``--help``."""

from __future__ import annotations

import types
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from .model import ConfigModel, aliases, items_of, models_in

MAX_PLACES_SHOWN = 4


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a config as a reader wants to know it. `default` is None where the key is required."""

    name: str
    aliases: tuple[str, ...]
    type: str
    default: str | None
    description: str


@dataclass(frozen=True, slots=True)
class Section:
    """A config class and the dotted paths where it stands; the top level's path is empty."""

    paths: tuple[str, ...]
    description: str
    keys: tuple[Key, ...]


def sections(model: type[ConfigModel], *, without: Collection[type[ConfigModel]] = ()) -> list[Section]:
    """Return the section of a config class, then those within it: each class once, in the order of the fields.

    Args:
        without: classes that are described elsewhere, and all that is within them.
    """
    paths: dict[type[ConfigModel], list[str]] = {}
    _collect(model, "", paths, frozenset(without))
    return [
        Section(
            tuple(places),
            " ".join((inner.__doc__ or "").split()),
            tuple(_key(name, field) for name, field in inner.model_fields.items()),
        )
        for inner, places in paths.items()
    ]


def _collect(
    model: type[ConfigModel], path: str, paths: dict[type[ConfigModel], list[str]], within: frozenset[type]
) -> None:
    """Note where each config class stands. `within` are those that are not gone into: the classes around it, so that a
    class may hold itself, and what is left out."""
    if path not in paths.setdefault(model, []):
        paths[model].append(path)
    prefix = f"{path}." if path else ""
    for name, field in model.model_fields.items():
        direct, listed = models_in([field.annotation]), models_in(items_of([field.annotation]))
        is_choice = len({*direct, *listed}) > 1
        for inner, place in [(m, name) for m in direct] + [(m, f"{name}.N") for m in listed]:
            if inner not in within and inner is not model:
                variant = _variant(inner) if is_choice else ""
                _collect(inner, f"{prefix}{place}{variant}", paths, within | {model})


def config_markdown(model: type[ConfigModel], *, level: int = 2, without: Collection[type[ConfigModel]] = ()) -> str:
    """Return the reference of a config class in Markdown: a table, and a heading of `level` for each section in it.

    Args:
        without: as `sections` takes it.
    """
    blocks: list[str] = []
    for section in sections(model, without=without):
        heading = _places([f"`{path}`" for path in section.paths if path])
        rows = [
            f"| {_names(key)} | {_cell(_code(key.type))} | {_cell(_default(key))} | {_cell(_text(key.description))} |"
            for key in section.keys
        ]
        table = "\n".join(["| key | type | default | meaning |", "|---|---|---|---|", *rows])
        parts = (f"{'#' * level} {heading}" if heading else "", _text(section.description), table)
        blocks.append("\n\n".join(part for part in parts if part))
    return "\n\n".join(blocks) + "\n"


def config_help(model: type[ConfigModel]) -> str:
    """Return the keys of a config class as lines for ``--help``: dotted key, type, default, meaning."""
    lines: list[str] = []
    for section in sections(model):
        for key in section.keys:
            path = _places([f"{path}.{key.name}" if path else key.name for path in section.paths])
            default = "required" if key.default is None else f"default {key.default}"
            also = f"; also {', '.join(key.aliases)}" if key.aliases else ""
            lines.append(f"  {path}  ({key.type}; {default}{also})")
            if key.description:
                lines.append(f"      {key.description}")
    return "\n".join(lines) + "\n"


def _key(name: str, field: FieldInfo) -> Key:
    default = None if field.is_required() else _value_text(field.get_default(call_default_factory=True))
    return Key(
        name=name,
        aliases=tuple(alias for alias in aliases(field) if alias != name),
        type=_type_text(field.annotation) + _limits(field),
        default=default,
        description=" ".join((field.description or "").split()),
    )


def _type_text(annotation: Any) -> str:
    """Return a type in the words of a config: ``number | null``, ``"cosine" | "linear"``, ``list of text``."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type_text(arguments[0])
    if origin in (Union, types.UnionType):
        return " | ".join(dict.fromkeys(_type_text(argument) for argument in arguments))
    if origin is Literal:
        return " | ".join(_value_text(argument) for argument in arguments)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return f"mapping of {_one_word(_type_text(arguments[1]))}" if arguments else "mapping"
    if origin in (list, tuple, set, frozenset):
        inner = [_type_text(argument) for argument in arguments if argument is not Ellipsis]
        return f"list of {_one_word(' | '.join(dict.fromkeys(inner)))}" if inner else "list"
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return " | ".join(_value_text(member.value) for member in annotation)
    if isinstance(annotation, type) and issubclass(annotation, ConfigModel):
        return "section"
    plain = {str: "text", int: "integer", float: "number", bool: "boolean", type(None): "null", dict: "mapping"}
    return plain.get(annotation, getattr(annotation, "__name__", str(annotation)).lower())


def _places(paths: list[str]) -> str:
    """Join paths, the shallowest first; of many only some."""
    shown = sorted(paths, key=lambda path: path.count("."))[:MAX_PLACES_SHOWN]
    more = f" and {len(paths) - len(shown)} more" if len(paths) > len(shown) else ""
    return ", ".join(shown) + more


def _one_word(text: str) -> str:
    return f"({text})" if " | " in text else text


def _limits(field: FieldInfo) -> str:
    """Return the field's bounds, such as `` (> 0, <= 1)``."""
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    found = [
        f"{sign} {getattr(rule, name)}"
        for rule in field.metadata
        for name, sign in signs.items()
        if getattr(rule, name, None) is not None
    ]
    return f" ({', '.join(found)})" if found else ""


def _value_text(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, ConfigModel):
        return "its defaults"
    if isinstance(value, Enum):
        return _value_text(value.value)
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value_text, value))}]"
    return str(value)


def _variant(inner: type[ConfigModel]) -> str:
    """Name the member of a union by its literal field, as in ``model (kind: "tiny")``."""
    for name, own in inner.model_fields.items():
        if get_origin(own.annotation) is Literal and len(get_args(own.annotation)) == 1:
            return f" ({name}: {_value_text(get_args(own.annotation)[0])})"
    return f" ({inner.__name__})"


def _names(key: Key) -> str:
    also = f" (also {', '.join(f'`{alias}`' for alias in key.aliases)})" if key.aliases else ""
    return f"`{key.name}`{also}"


def _default(key: Key) -> str:
    return "required" if key.default is None else _code(key.default)


def _text(docstring: str) -> str:
    """Turn the code marks of docstrings into those of Markdown."""
    return docstring.replace("``", "`")


def _code(text: str) -> str:
    return f"`{text}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
