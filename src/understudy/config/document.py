"""Read YAML the way people mean it: YAML 1.2's core schema, with the line of every key.

PyYAML follows YAML 1.1, where ``1e-5`` is text, ``no`` is false, ``12:30`` is 750, ``010`` is 8 and a repeated key
silently wins. Here ``1e-5`` is a number, only ``true`` and ``false`` are booleans, and a repeated key is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from understudy.errors import ConfigError

KeyPath = tuple[str | int, ...]
"""The way to a value: keys of mappings and positions in lists."""


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed YAML mapping. `lines` gives the 1-based line of each key and list item."""

    value: dict[str, Any]
    lines: dict[KeyPath, int] = field(default_factory=dict)


class _Loader(yaml.SafeLoader):
    """SafeLoader with YAML 1.2's core schema for plain scalars (https://yaml.org/spec/1.2.2/#103-core-schema)."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (PyYAML's own attribute, replaced as a whole)

    def construct_core_int(self, node: yaml.ScalarNode) -> int:
        text = node.value
        base = {"0o": 8, "0x": 16}.get(text[:2], 10)
        return int(text[2:] if base != 10 else text, base)


_FLOAT = re.compile(
    r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
_CORE_SCHEMA = [
    ("tag:yaml.org,2002:null", re.compile(r"~|null|Null|NULL|"), ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:bool", re.compile(r"true|True|TRUE|false|False|FALSE"), list("tTfF")),
    ("tag:yaml.org,2002:int", re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+"), list("-+0123456789")),
    ("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789")),
    ("tag:yaml.org,2002:merge", re.compile(r"<<"), ["<"]),
]
for _tag, _pattern, _first in _CORE_SCHEMA:
    _Loader.add_implicit_resolver(_tag, re.compile(rf"(?:{_pattern.pattern})\Z"), _first)
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_core_int)


class _Dumper(yaml.SafeDumper):
    """SafeDumper that also quotes text that only YAML 1.2 would read as a number, such as ``1e-5``."""


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    """Escape the line breaks that PyYAML would otherwise write raw into quotes, where they read back as spaces."""
    style = '"' if any(mark in text for mark in "\r\x85\u2028\u2029\ufeff") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(rf"(?:{_FLOAT.pattern})\Z"), list("-+.0123456789"))
_Dumper.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"0o[0-7]+\Z"), ["0"])


def read_document(path: str | Path) -> Document:
    """Read a YAML file whose top level is a mapping; an empty file is an empty mapping.

    Raises:
        ConfigError: the file cannot be read, is not YAML, repeats a key, or is not a mapping.
    """
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{path}: cannot read this config: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text (byte {error.start}); save the file as UTF-8") from error
    return parse_document(text, source=str(path))


def parse_document(text: str, *, source: str = "config") -> Document:
    """Parse YAML text whose top level is a mapping; `source` names it in errors.

    Raises:
        ConfigError: as `read_document`.
    """
    reader = _Reader(source)
    value = reader.parse(text)
    if value is None:
        return Document({})
    if not isinstance(value, dict):
        raise ConfigError(f"{source}: the top level is {_kind(value)}, but a config is a mapping of keys (key: value)")
    return Document(value, reader.lines)


def parse_value(text: str, *, source: str) -> Any:
    """Parse the YAML value of an override. A lone ``-`` is standard input, and not YAML's list of nothing.

    Raises:
        ConfigError: it is not YAML.
    """
    return text.strip() if text.strip() == "-" else _Reader(source).parse(text)


def dump_document(value: dict[str, Any]) -> str:
    """Return YAML that `parse_document` reads back to an equal value, and that YAML 1.1 readers understand too."""
    text: str = yaml.dump(
        value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120, default_flow_style=False, indent=2
    )
    return text


class _Reader:
    """Turns YAML nodes into values, noting lines and repeated keys on the way."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.lines: dict[KeyPath, int] = {}
        self._repeated: list[str] = []
        self._open: set[int] = set()  # ids of the nodes being read, to notice an anchor inside itself

    def parse(self, text: str) -> Any:
        try:
            loader = _Loader(text)
            try:
                node = loader.get_single_node()
                value = None if node is None else self._value(loader, node, ())
            finally:
                loader.dispose()
        except yaml.YAMLError as error:
            raise ConfigError(_yaml_message(error, self.source)) from error
        except RecursionError as error:
            raise ConfigError(f"{self.source}: nested too deeply") from error
        except ValueError as error:  # a number with thousands of digits
            raise ConfigError(f"{self.source}: {error}") from error
        if self._repeated:
            raise ConfigError("\n".join(self._repeated))
        return value

    def _value(self, loader: _Loader, node: yaml.Node, path: KeyPath) -> Any:
        if id(node) in self._open:
            raise ConfigError(f"{self.source}:{_line(node)}: an anchor stands inside itself")
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode) and node.tag == "tag:yaml.org,2002:map":
                return self._mapping(loader, node, path)
            if isinstance(node, yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
                return [self._item(loader, item, (*path, index)) for index, item in enumerate(node.value)]
            return loader.construct_object(node, deep=True)
        finally:
            self._open.discard(id(node))

    def _item(self, loader: _Loader, node: yaml.Node, path: KeyPath) -> Any:
        self.lines.setdefault(path, _line(node))
        return self._value(loader, node, path)

    def _mapping(self, loader: _Loader, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        self._refuse_repeats(node, path)
        loader.flatten_mapping(node)  # puts what ``<<`` brings in before the mapping's own keys
        out: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = self._key(key_node)
            self.lines[(*path, key)] = _line(key_node)
            out[key] = self._value(loader, value_node, (*path, key))
        return out

    def _key(self, node: yaml.Node) -> str:
        if not isinstance(node, yaml.ScalarNode):
            raise ConfigError(f"{self.source}:{_line(node)}: a key is itself a list or a mapping; keys are plain words")
        return str(node.value)

    def _refuse_repeats(self, node: yaml.MappingNode, path: KeyPath) -> None:
        seen: dict[str, int] = {}
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key, line = self._key(key_node), _line(key_node)
            if key in seen:
                dotted = ".".join(map(str, (*path, key)))
                self._repeated.append(
                    f"{self.source}:{line}: {dotted}: this key stands already on line {seen[key]}; keep one of the two"
                )
            seen.setdefault(key, line)


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _kind(value: Any) -> str:
    return "a list" if isinstance(value, list) else f"one value ({value!r})"


def _yaml_message(error: yaml.YAMLError, source: str) -> str:
    """Say in one line where the YAML breaks, and how to mend the commonest break."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return f"{source}: not YAML: {error}"
    mark = error.problem_mark
    problem = error.problem or "cannot be parsed"
    mend = ""
    if "'\\t'" in problem:
        mend = " (mend: indent with spaces, not with tabs)"
    elif "mapping values are not allowed" in problem:
        mend = " (mend: quote text that holds ': ', and align the keys of one mapping)"
    elif "constructor for the tag" in problem:
        mend = " (mend: only plain YAML is read, without tags)"
    return f"{source}:{mark.line + 1}: column {mark.column + 1}: not YAML: {problem}{mend}"
