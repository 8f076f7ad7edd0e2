"""From a YAML file and dotted overrides to one checked config; every problem is reported at once."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from understudy.errors import ConfigError, did_you_mean

from .document import Document, KeyPath, dump_document, parse_value, read_document
from .model import ConfigModel, dotted_names, fitting, items_of, models_in, names_of, wants_list, wants_number

Config = TypeVar("Config", bound=ConfigModel)

MAX_SHOWN_CHARACTERS = 60


def load_config(model: type[Config], path: str | Path | None = None, overrides: Sequence[str] = ()) -> Config:
    """Read, override and check a config.

    Args:
        model: the config's class.
        path: the YAML file; None starts from the defaults.
        overrides: ``dotted.key=value`` with a YAML value. A key of digits is a position in a list
            (``data.sources.0.path=…``). The last of two overrides of one key holds; a mapping replaces a mapping.

    Raises:
        ConfigError: all that is wrong, each with its place, key, reason and mend.
    """
    document = read_document(path) if path is not None else Document({})
    return _build(model, document, overrides, source=str(path) if path is not None else "config")


def config_from_dict(
    model: type[Config], value: Mapping[str, Any], overrides: Sequence[str] = (), *, source: str = "config"
) -> Config:
    """Check a config that is already a mapping; `source` names it in errors.

    Raises:
        ConfigError: as `load_config`.
    """
    return _build(model, Document(dict(value)), overrides, source=source)


def dump_config(config: ConfigModel) -> str:
    """Return the resolved config as YAML, defaults included; `load_config` reads it back to an equal config."""
    return dump_document(config.model_dump(mode="json", by_alias=False))


def _build(model: type[Config], document: Document, overrides: Sequence[str], *, source: str) -> Config:
    check = _Check(model, source, document.lines)
    value = check.canonical(document.value, [model], (), ())
    for text in overrides:
        check.apply_override(value, text)
    try:
        config = model.model_validate(value)
    except ValidationError as error:
        check.add_refusals(error, value)
        config = None
    if check.problems or config is None:
        raise ConfigError(check.message())
    return config


@dataclass(slots=True)
class _Check:
    """Brings keys to their own names and gathers the problems of one config.

    Paths in `problems` and `overridden` are of own names; `lines` is keyed by the names that the file uses.
    """

    model: type[ConfigModel]
    source: str
    lines: dict[KeyPath, int]
    problems: dict[tuple[KeyPath, str], str] = field(default_factory=dict)  # (path, place) -> reason
    written: dict[KeyPath, KeyPath] = field(default_factory=dict)  # own path -> path as the file has it
    overridden: dict[KeyPath, str] = field(default_factory=dict)  # own path -> the override that set it
    refused: set[KeyPath] = field(default_factory=set)  # known keys with a bad value: their description helps

    def canonical(self, value: Any, annotations: Sequence[Any], path: KeyPath, written: KeyPath) -> Any:
        """Return `value` with every key under its field's own name, without the keys that no model knows."""
        self.written[path] = written
        if isinstance(value, list | tuple):
            inner = items_of(annotations)
            return [self.canonical(item, inner, (*path, index), (*written, index)) for index, item in enumerate(value)]
        if isinstance(value, bool) and wants_number(annotations):
            self._add(path, f"should be a number, got {_short(value)}")
        if not isinstance(value, Mapping):
            return value
        models = fitting(models_in(annotations), value)
        if not models:
            inner = items_of(annotations)
            return {key: self.canonical(item, inner, (*path, key), (*written, key)) for key, item in value.items()}
        out: dict[str, Any] = {}
        first_name: dict[str, str] = {}
        for key, item in value.items():
            name = self._own_name(key, models)
            if name is None:
                self._add((*path, key), "unknown key." + self._suggest((*path, key), models), (*written, key))
            elif name in out:
                reason = f"the same setting is given as {first_name[name]!r} and as {key!r}; keep one"
                self._add((*path, name), reason, (*written, key))
            else:
                first_name[name] = key
                inner = [m.model_fields[name].annotation for m in models if name in m.model_fields]
                out[name] = self.canonical(item, inner, (*path, name), (*written, key))
        return out

    def apply_override(self, root: dict[str, Any], text: str) -> None:
        """Set one ``dotted.key=value`` in `root`, a canonical value."""
        dotted, equals, raw = text.partition("=")
        keys = dotted.strip().split(".")
        if not equals or not all(keys):
            self.problems[(), f"override {text!r}"] = "write it as dotted.key=value, for example train.max_steps=100"
            return
        if not raw.strip():
            mend = f"no value after '='; write {dotted}=null for none, {dotted}='\"\"' for empty text"
            self.problems[tuple(keys), f"override {text!r}"] = mend
            return
        new = parse_value(raw, source=f"override {text!r}")
        self._set(root, keys, new, f"override {text!r}")

    def _set(self, root: dict[str, Any], keys: list[str], new: Any, place: str) -> None:
        """Walk to the place that `keys` name, making the mappings that are not there yet, and set the value there."""
        container: Any = root
        annotations: list[Any] = [self.model]
        path: KeyPath = ()
        for position, key in enumerate(keys):
            step = self._step(container, key, annotations, path)
            if isinstance(step, str):
                self.problems[(*path, *keys[position:]), place] = step
                return
            name, annotations = step
            path = (*path, name)
            if position == len(keys) - 1:
                self.overridden = {p: o for p, o in self.overridden.items() if p[: len(path)] != path}
                self.overridden[path] = place
                container[name] = self.canonical(new, annotations, path, path)
                return
            inner = container[name] if isinstance(name, int) else container.get(name)
            if inner is None:
                inner = container[name] = [] if wants_list(annotations) else {}
            if not isinstance(inner, dict | list):
                self.problems[(*path, *keys[position + 1 :]), place] = f"{_dotted(path)} is one value, not a section"
                return
            container = inner

    def _step(
        self, container: Any, key: str, annotations: Sequence[Any], path: KeyPath
    ) -> tuple[str | int, list[Any]] | str:
        """Return the own name of a key (or a list's index) and the types behind it; text says why there is none."""
        if isinstance(container, list):
            if not key.isdecimal() or int(key) > len(container):
                return f"{_dotted(path)} is a list of {len(container)}; name a position from 0 to {len(container)}"
            if int(key) == len(container):
                container.append(None)
            return int(key), items_of(annotations)
        models = fitting(models_in(annotations), container)
        if not models:
            return key, items_of(annotations)
        name = self._own_name(key, models)
        if name is None:
            return "unknown key." + self._suggest((*path, key), models)
        return name, [m.model_fields[name].annotation for m in models if name in m.model_fields]

    def add_refusals(self, error: ValidationError, value: Any) -> None:
        """Add what pydantic refuses."""
        for detail in error.errors(include_url=False):
            path = _data_path(detail["loc"], value, keep_last=detail["type"] in ("missing", "extra_forbidden"))
            kind, given = detail["type"], detail["input"]
            if kind == "missing":
                reason = "is required"
            elif kind in ("value_error", "assertion_error"):
                reason = detail["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
            elif kind in ("model_type", "model_attributes_type"):
                reason = f"should be a section (a mapping of keys), got {_short(given)}"
            elif kind == "union_tag_invalid":
                path = (*path, detail["ctx"]["discriminator"].strip("'"))
                reason = f"should be one of {detail['ctx']['expected_tags']}, got {_short(given.get(path[-1]))}"
            else:
                reason = f"{detail['msg'].removeprefix('Input ')}, got {_short(given)}"
            choices = re.findall("'([^']*)'", str(detail.get("ctx", {}).get("expected", "")))
            if isinstance(given, str) and choices:
                reason += f".{near}" if (near := did_you_mean(given, choices)) else ""
            self.refused.add(path)
            self._add(path, reason)

    def _own_name(self, key: str, models: Sequence[type[ConfigModel]]) -> str | None:
        return next((names[key] for names in map(names_of, models) if key in names), None)

    def _suggest(self, path: KeyPath, models: Sequence[type[ConfigModel]]) -> str:
        """Say what an unknown key was probably meant to be, here or elsewhere in the config."""
        prefix = "".join(f"{part}." for part in path[:-1])
        key = str(path[-1])
        known = [name for model in models for name in names_of(model)]
        near = did_you_mean(f"{prefix}{key}", [f"{prefix}{name}" for name in known]) if did_you_mean(key, known) else ""
        if not near:
            elsewhere = [name for name in dotted_names(self.model) if name.rpartition(".")[2] == key]
            near = f" Did you mean {elsewhere[0]!r}?" if elsewhere else ""
        own = sorted({name for model in models for name in model.model_fields})
        return near or f" Known here: {', '.join(own)}"

    def _description(self, path: KeyPath) -> str:
        """Return the first sentence of a refused key's description, in brackets."""
        if path not in self.refused:
            return ""
        annotations: list[Any] = [self.model]
        text = ""
        for part in path:
            models = models_in(annotations)
            fields = [m.model_fields[part] for m in models if isinstance(part, str) and part in m.model_fields]
            text = next((f.description or "" for f in fields), "")
            annotations = [f.annotation for f in fields] or items_of(annotations)
        first = " ".join(text.split()).split(". ")[0].rstrip(".")
        return f" ({path[-1]}: {first})" if path and first else ""

    def _add(self, path: KeyPath, reason: str, written: KeyPath | None = None) -> None:
        """Note a problem; several reasons for one key (the members of a union) are joined."""
        place = self._place(path, written)
        known = self.problems.get((path, place))
        self.problems[path, place] = reason if known is None else f"{known}; or {reason}"

    def _place(self, path: KeyPath, written: KeyPath | None) -> str:
        """Return where a value comes from: an override, or the line of the file that has it or its section."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.overridden:
                return self.overridden[path[:length]]
            way = written if written is not None and length == len(path) else self.written.get(path[:length])
            if way in self.lines:
                return f"{self.source}:{self.lines[way]}"
        below = [place for other, place in self.overridden.items() if other[: len(path)] == path]
        return below[0] if below else self.source

    def message(self) -> str:
        lines = [
            ": ".join(part for part in (place, _dotted(path), reason) if part) + self._description(path)
            for (path, place), reason in self.problems.items()
        ]
        if len(lines) == 1:
            return lines[0]
        return "\n".join([f"{self.source}: {len(lines)} problems", *(f"  {line}" for line in lines)])


def _data_path(location: tuple[str | int, ...], value: Any, *, keep_last: bool) -> KeyPath:
    """Turn pydantic's location into a path of the data: it also names the members of unions, which data has not."""
    path: list[str | int] = []
    for index, part in enumerate(location):
        inside = part in value if isinstance(value, Mapping) else isinstance(value, list) and isinstance(part, int)
        if inside:
            path.append(part)
            value = value[part]
        elif keep_last and index == len(location) - 1:
            path.append(part)
    return tuple(path)


def _dotted(path: KeyPath) -> str:
    return ".".join(map(str, path))


def _short(value: Any) -> str:
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= MAX_SHOWN_CHARACTERS else text[: MAX_SHOWN_CHARACTERS - 1] + "…"
