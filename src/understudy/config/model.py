"""The base of every config class, and what can be asked of a class's fields.

A config is frozen, refuses keys that it does not know, and never changes what the user wrote: a validator of a subclass
may refuse a value, not replace it. The docstring under a field is its description in ``--help`` and in the reference.
"""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import AliasChoices, BaseModel, ConfigDict
from pydantic.fields import FieldInfo


class ConfigModel(BaseModel):
    """A section of a config. Give every field a docstring; other names of a field go into ``validation_alias``."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        validate_by_name=True,
        validate_by_alias=True,
        allow_inf_nan=False,
        protected_namespaces=(),
    )


def aliases(field: FieldInfo) -> tuple[str, ...]:
    """Return the other names under which a field may be given."""
    alias = field.validation_alias
    if isinstance(alias, AliasChoices):
        return tuple(choice for choice in alias.choices if isinstance(choice, str))
    return (alias,) if isinstance(alias, str) else ()


def names_of(model: type[ConfigModel]) -> dict[str, str]:
    """Return every name that a model's keys may have, mapped to the field's own name."""
    names = {name: name for name in model.model_fields}
    for name, field in model.model_fields.items():
        names.update(dict.fromkeys(aliases(field), name) | {name: name})
    return names


def members(annotation: Any) -> list[Any]:
    """Return the alternatives of a type: the members of a union, without ``Annotated``."""
    if hasattr(annotation, "__value__"):  # ``type Name = …`` of Python 3.12
        return members(annotation.__value__)
    origin = get_origin(annotation)
    if origin is Annotated:
        return members(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return [member for argument in get_args(annotation) for member in members(argument)]
    return [annotation]


def wants_list(annotations: Sequence[Any]) -> bool:
    """Return whether some types take a list."""
    found = [member for annotation in annotations for member in members(annotation)]
    return any((get_origin(member) or member) in (list, tuple, set, frozenset) for member in found)


def wants_number(annotations: Sequence[Any]) -> bool:
    """Return whether some types take a number and no boolean. Pydantic alone would read ``true`` as 1."""
    found = [member for annotation in annotations for member in members(annotation)]
    return any(member in (int, float) for member in found) and not any(member in (bool, Any) for member in found)


def models_in(annotations: Sequence[Any]) -> list[type[ConfigModel]]:
    """Return the config classes among the alternatives of some types."""
    found = [member for annotation in annotations for member in members(annotation)]
    return [member for member in found if isinstance(member, type) and issubclass(member, ConfigModel)]


def items_of(annotations: Sequence[Any]) -> list[Any]:
    """Return the types of the items of the lists, tuples and mappings among some types."""
    found: list[Any] = []
    for member in (member for annotation in annotations for member in members(annotation)):
        origin, arguments = get_origin(member), [a for a in get_args(member) if a is not Ellipsis]
        if not isinstance(origin, type) or not arguments:
            continue
        if issubclass(origin, Mapping):
            found.append(arguments[1])
        elif issubclass(origin, Sequence | set | frozenset):
            found.extend(arguments)
    return found


def fitting(models: Sequence[type[ConfigModel]], value: Mapping[str, Any]) -> list[type[ConfigModel]]:
    """Return the models whose ``Literal`` fields agree with a value: the member of a union that the user means."""

    def agrees(model: type[ConfigModel]) -> bool:
        return all(
            value[name] in get_args(field.annotation)
            for name, field in model.model_fields.items()
            if name in value and get_origin(field.annotation) is Literal
        )

    return [model for model in models if agrees(model)] or list(models)


def dotted_names(model: type[ConfigModel], prefix: str = "", seen: frozenset[type] = frozenset()) -> Iterator[str]:
    """Yield the dotted path of every key of a config and of its sections."""
    for name, field in model.model_fields.items():
        path = f"{prefix}{name}"
        yield path
        for inner in models_in([field.annotation]):
            if inner not in seen:
                yield from dotted_names(inner, f"{path}.", seen | {model})
