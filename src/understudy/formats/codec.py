"""Frozen dataclasses to and from JSON, driven by their type hints: strict, lossless, and without defaults.

A field that holds its default is not written. Literal fields always are, because they tell the members of a union
apart. A lone float must be finite, because it is a reward or a weight; the floats of a tuple (log probabilities) may be
infinite.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin

from understudy.errors import FormatError, did_you_mean
from understudy.types.fields import is_finite_number, kind
from understudy.types.message import JSON

Decoder = Callable[[JSON], Any]


def encode(value: Any) -> JSON:
    """Return the JSON value of a dataclass, or of what stands in a field of one.

    Raises:
        FormatError: a reward or a weight is not finite.
    """
    if isinstance(value, tuple):
        return _encode_items(value) if value and dataclasses.is_dataclass(value[0]) else list(value)
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return value
    out: dict[str, JSON] = {}
    for field in _written_fields(type(value)):
        name, item = field.name, getattr(value, field.name)
        if not field.is_literal and type(item) is type(field.default) and item == field.default:
            continue
        if field.is_float and item is not None and not is_finite_number(item):
            raise FormatError(f"{item} is not finite", field=name, mend="write a number, or None where it is unknown")
        try:
            out[name] = encode(item)
        except FormatError as error:
            raise error.at(field=name) from None
    return out


def _encode_items(items: tuple[Any, ...]) -> list[JSON]:
    out: list[JSON] = []
    try:
        for item in items:
            out.append(encode(item))
    except FormatError as error:
        raise error.at(field=f"[{len(out)}]") from None
    return out


def _members(hint: Any) -> tuple[Any, ...]:
    """Return the members of a union; any other hint is its own."""
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


@dataclasses.dataclass(frozen=True, slots=True)
class _WrittenField:
    name: str
    default: Any
    is_literal: bool
    is_float: bool


@cache
def _written_fields(cls: type) -> tuple[_WrittenField, ...]:
    hints = typing.get_type_hints(cls)
    out = []
    for field in dataclasses.fields(cls):
        hint = hints[field.name]
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        out.append(_WrittenField(field.name, default, get_origin(hint) is Literal, float in _members(hint)))
    return tuple(out)


@cache
def decoder(cls: type) -> Decoder:
    """Return what makes a `cls` of a JSON object.

    The returned function raises FormatError with the field that is missing, unknown or of the wrong type.
    """
    hints = typing.get_type_hints(cls)
    fields = {field.name: _decoder_of(hints[field.name]) for field in dataclasses.fields(cls)}
    required = [
        field.name
        for field in dataclasses.fields(cls)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]

    def decode(value: JSON) -> Any:
        if not isinstance(value, dict):
            raise FormatError(f"expected an object, not {kind(value)}")
        found: dict[str, Any] = {}
        name = ""
        try:
            for name, item in value.items():
                found[name] = fields[name](item)
        except FormatError as error:
            raise error.at(field=name) from None
        except KeyError:
            mend = "remove it, or read the file with the version of Understudy that wrote it"
            raise FormatError(f"unknown field.{did_you_mean(str(name), fields)}", field=name, mend=mend) from None
        for name in required:
            if name not in found:
                raise FormatError("the field is missing", field=name)
        try:
            return cls(**found)
        except ValueError as error:
            raise FormatError(str(error)) from None

    return decode


def _decoder_of(hint: Any) -> Decoder:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return _union(_members(hint))
    if hint is Any:
        return lambda value: value
    if dataclasses.is_dataclass(hint):
        return decoder(typing.cast(type, hint))
    if origin is tuple:
        return _tuple(get_args(hint)[0])
    if origin is dict or hint is dict:
        return _checked(dict, "an object")
    if origin is Literal:
        return _literal(get_args(hint))
    return {str: _checked(str, "text"), bool: _checked(bool, "true or false"), int: _int, float: _float}[hint]


def _checked(wanted: type, name: str) -> Decoder:
    def decode(value: JSON) -> Any:
        if not isinstance(value, wanted):
            raise FormatError(f"expected {name}, not {kind(value)}")
        return value

    return decode


def _int(value: JSON) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise FormatError(f"expected a whole number, not {value!r:.40}")
    return value


def _float(value: JSON) -> float:
    if isinstance(value, bool) or not is_finite_number(value):
        raise FormatError(f"expected a finite number, not {value!r:.40}")
    return float(value)


def _literal(allowed: tuple[Any, ...]) -> Decoder:
    def decode(value: JSON) -> Any:
        if value not in allowed:
            raise FormatError(f"expected {' or '.join(map(repr, allowed))}, not {value!r:.40}")
        return value

    return decode


def _tuple(item: Any) -> Decoder:
    """Decode a list. Numbers are checked all at once: token ids are many."""
    numbers: frozenset[type] = {int: frozenset({int}), float: frozenset({int, float})}.get(item, frozenset())
    decode_item = _decoder_of(item)

    def decode(value: JSON) -> tuple[Any, ...]:
        if not isinstance(value, list | tuple):
            raise FormatError(f"expected a list, not {kind(value)}")
        if numbers and numbers.issuperset(map(type, value)):
            return tuple(value)
        out = []
        for i, one in enumerate(value):
            try:
                out.append(decode_item(one))
            except FormatError as error:
                raise error.at(field=f"[{i}]") from None
        return tuple(out)

    return decode


def _union(members: tuple[Any, ...]) -> Decoder:
    """Tell the members apart by the kind of the JSON value; several dataclasses by their literal field ``type``."""
    classes = [member for member in members if dataclasses.is_dataclass(member)]
    by_kind: dict[str, Decoder] = {}
    for member in members:
        if member is type(None):
            by_kind["null"] = lambda value: None
        elif member not in classes:
            by_kind[_KINDS[get_origin(member) or member]] = _decoder_of(member)
    if classes:
        by_kind["an object"] = _decoder_of(classes[0]) if len(classes) == 1 else _by_type(classes)

    def decode(value: JSON) -> Any:
        found = by_kind.get(kind(value))
        if found is None:
            raise FormatError(f"expected {' or '.join(by_kind)}, not {kind(value)}")
        return found(value)

    return decode


_KINDS = {str: "text", bool: "true or false", int: "a number", float: "a number", dict: "an object", tuple: "a list"}


def _by_type(classes: list[Any]) -> Decoder:
    by_name = {get_args(typing.get_type_hints(cls)["type"])[0]: decoder(cls) for cls in classes}

    def decode(value: JSON) -> Any:
        name = value.get("type")
        if not isinstance(name, str) or name not in by_name:
            raise FormatError(f"unknown type {name!r:.40}; known: {', '.join(by_name)}", field="type")
        return by_name[name](value)

    return decode
