"""Understudy's own rows: one episode, lossless and versioned.

A row is the `Episode` field by field, without the fields that hold their defaults, and always with ``schema_version``.
`json_schema` gives the JSON Schema of a row, made from the types themselves. In Parquet the columns are the episode's
fields; those that are nested (``trajectories``, ``task``, ``metadata``) are of Parquet's JSON type.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from understudy.errors import FormatError
from understudy.types import JSON, SCHEMA_VERSION, Episode

from .base import Encoded, Format
from .codec import decoder, encode


class Native(Format):
    """``{"schema_version": 1, "id": …, "trajectories": […], …}``."""

    name: ClassVar[str] = "native"
    summary: ClassVar[str] = "Understudy's own, lossless and versioned: one episode a row"
    linear: ClassVar[bool] = False

    def match(self, row: Mapping[str, JSON]) -> str | None:
        return "'schema_version' and 'id' are Understudy's" if "schema_version" in row and "id" in row else None

    def read_row(self, row: Mapping[str, JSON], id: str) -> list[Episode]:
        version = row.get("schema_version")
        if version != SCHEMA_VERSION or isinstance(version, bool):
            raise FormatError(
                f"the row has schema version {version!r:.40}, this Understudy reads {SCHEMA_VERSION}",
                field="schema_version",
                mend="install the version of Understudy that wrote it, or name another format",
            )
        episode: Episode = decoder(Episode)(dict(row))
        return [episode]

    def write_row(self, episode: Episode) -> dict[str, JSON]:
        row: dict[str, JSON] = encode(episode)
        return {"schema_version": episode.schema_version, **row}

    def encode(self, episode: Episode) -> Encoded:
        """Return the one row. Nothing is lost by construction, so nothing is compared."""
        return Encoded([self.write_row(episode)])


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a row."""
    from pydantic import TypeAdapter

    schema = TypeAdapter(Episode).json_schema()
    for part in (schema, *schema.get("$defs", {}).values()):
        part["additionalProperties"] = False
    schema["required"] = [*schema["required"], "schema_version"]
    schema["properties"]["schema_version"] = {"const": SCHEMA_VERSION}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
