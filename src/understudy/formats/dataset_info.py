"""LLaMA-Factory's ``dataset_info.json``: which file a data set is, and what its columns and tags are called.

A source ``path/dataset_info.json#name`` stands for the entry `name`. Files are found beside the ``dataset_info.json``.
As there, a column that the entry does not name is not used (its values go to the metadata), but for the conversation.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from understudy.errors import FormatError, did_you_mean
from understudy.types import JSON
from understudy.types.fields import kind

from .alpaca import Alpaca, AlpacaColumns
from .base import Format
from .rows import parse_row
from .sharegpt import Columns, ShareGPT, Tags

Names = TypeVar("Names", Columns, Tags, AlpacaColumns)

_KEYS = ("file_name", "formatting", "columns", "tags", "ranking", "split")
_OPENAI_TAGS = Tags(
    role_tag="role", content_tag="content", user_tag="user", assistant_tag="assistant", observation_tag="tool"
)
_ELSEWHERE = ("hf_hub_url", "ms_hub_url", "om_hub_url", "script_url", "cloud_file_name")
_PREFERENCE_COLUMNS = ("chosen", "rejected", "kto_tag")


def split_reference(source: object) -> tuple[str, str] | None:
    """Return (file, entry) of ``dataset_info.json#name``; None when the source is no such reference."""
    if isinstance(source, list | tuple) and len(source) == 1:
        source = source[0]
    name = os.fspath(source) if isinstance(source, str | Path) else ""
    file, mark, entry = name.rpartition("#")
    return (file, entry) if mark and file.endswith(".json") and not os.path.exists(name) else None


def load_dataset_info(file: str, entry: str) -> tuple[str, Format]:
    """Return the file or folder of a data set, and the format of its rows.

    Raises:
        FormatError: there is no such entry, or it is nothing that can be read here.
    """
    try:
        declared = parse_row(Path(file).read_bytes())
    except OSError as error:
        raise FormatError(f"cannot read the file: {error.strerror}", file=file) from None
    except FormatError as error:
        raise error.at(file=file) from None
    if not isinstance(declared, dict) or not isinstance(declared.get(entry), dict):
        known = list(declared) if isinstance(declared, dict) else []
        mend = f"known: {', '.join(known)}" if known else None
        raise FormatError(f"there is no data set {entry!r}.{did_you_mean(entry, known)}", file=file, mend=mend)
    try:
        found = _format(declared[entry], folder := os.path.dirname(file))
    except FormatError as error:
        raise error.at(file=file, field=entry) from None
    return os.path.join(folder, declared[entry]["file_name"]), found


def _format(entry: Mapping[str, Any], folder: str) -> Format:
    for key, value in entry.items():
        if key in _ELSEWHERE:
            raise FormatError("the data is on a hub", field=key, mend="download it and give its file_name")
        if key == "ranking" and value:
            raise FormatError("pairs of preferences are no demonstrations", field=key, mend="choose another data set")
        if key not in _KEYS:
            mend = f"supported: {', '.join(_KEYS)}"
            raise FormatError(f"the key is not supported.{did_you_mean(key, _KEYS)}", field=key, mend=mend)
    if not isinstance(entry.get("file_name"), str):
        raise FormatError("the file is missing", field="file_name")
    columns = {key: value for key, value in _names(entry, "columns").items() if key not in _PREFERENCE_COLUMNS}
    if len(columns) < len(entry.get("columns") or {}):
        raise FormatError("preferences are no demonstrations", field="columns", mend="choose another data set")
    formatting = entry.get("formatting", "alpaca")
    if formatting == "alpaca":
        query = "" if columns else AlpacaColumns().query
        unnamed = AlpacaColumns(query=query, history="", system="", tools="", images="")
        return Alpaca(_replaced(unnamed, columns, "columns"), folder)
    if formatting not in ("sharegpt", "openai"):
        mend = "known: alpaca, sharegpt, openai"
        raise FormatError(f"unknown formatting {formatting!r}", field="formatting", mend=mend)
    is_openai = formatting == "openai"
    unnamed_columns = Columns(messages="messages" if is_openai else "conversations", system="", tools="", images="")
    tags = _replaced(_OPENAI_TAGS if is_openai else Tags(), _names(entry, "tags"), "tags")
    return ShareGPT(_replaced(unnamed_columns, columns, "columns"), tags, folder)


def _names(entry: Mapping[str, Any], key: str) -> dict[str, JSON]:
    value = entry.get(key) or {}
    if not isinstance(value, dict):
        raise FormatError(f"expected an object, not {kind(value)}", field=key)
    return value


def _replaced(default: Names, names: dict[str, JSON], field: str) -> Names:
    """Return the names with those that the entry declares."""
    known = [one.name for one in dataclasses.fields(default)]
    for key, value in names.items():
        if key not in known:
            raise FormatError(f"unknown name {key!r}.{did_you_mean(key, known)}", field=field)
        if not isinstance(value, str):
            raise FormatError(f"expected text, not {kind(value)}", field=f"{field}.{key}")
    return dataclasses.replace(default, **names)
