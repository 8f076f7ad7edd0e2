"""Rows and episodes: every format in and out, from and to every kind of file.

`read_episodes` and `write_episodes` are what most code needs. A format of your own is a subclass of `Format`.
"""

from .base import Encoded, Format, get_format
from .detect import Detection, detect
from .episodes import EpisodeReader, WriteResult, list_files, read_episodes, write_episodes
from .files import Source, read_rows
from .rows import DEFAULT_MAX_ROW_BYTES, BadRow, Row
from .writer import write_rows

__all__ = [
    "DEFAULT_MAX_ROW_BYTES",
    "BadRow",
    "Detection",
    "Encoded",
    "EpisodeReader",
    "Format",
    "Row",
    "Source",
    "WriteResult",
    "detect",
    "get_format",
    "list_files",
    "read_episodes",
    "read_rows",
    "write_episodes",
    "write_rows",
]
