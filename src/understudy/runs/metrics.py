"""``metrics.jsonl``: one JSON object for each line, written so that a kill costs at most the line being written."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from understudy.errors import DataError

from .atomic import write_atomically

Metric = float | int | str | bool | None | Mapping[str, "Metric"]


class MetricsWriter:
    """Appends rows; each is one write that has left the process when `write` returns.

    Args:
        path: the file. A last line that a kill has cut is taken away before anything is added.
        keep_through_step: for a run that goes on from a checkpoint: rows of later steps are taken away, because those
            steps will be done again.
    """

    def __init__(self, path: str | Path, *, keep_through_step: int | None = None) -> None:
        self.path = Path(path)
        if self.path.exists():
            self._mend(keep_through_step)
        self._file = self.path.open("ab", buffering=0)

    def write(self, step: int, metrics: Mapping[str, Metric]) -> None:
        """Append ``{"step": …, "time": …, **metrics}``. JSON has no infinity and no NaN: both become null."""
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        row = {"step": step, "time": time} | {name: _finite(value) for name, value in metrics.items()}
        line = memoryview(json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n")
        while len(line):
            line = line[self._file.write(line) :]

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> MetricsWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _mend(self, keep_through_step: int | None) -> None:
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if keep_through_step is not None:
            rows = read_metrics(self.path)
            lines = whole.split(b"\n")[:-1]
            kept = [line for line, row in zip(lines, rows, strict=True) if row["step"] <= keep_through_step]
            whole = b"".join(line + b"\n" for line in kept)
        if whole != content:
            write_atomically(self.path, whole)


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """Return the rows of a metrics file. A last line without its newline was being written and is left out.

    Raises:
        DataError: another line is not a JSON object with a step.
    """
    rows: list[dict[str, Any]] = []
    lines = Path(path).read_bytes().split(b"\n")
    for number, line in enumerate(lines[:-1], start=1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"not JSON: {error}", file=str(path), row=number) from error
        if not isinstance(row, dict) or not isinstance(row.get("step"), int):
            raise DataError("not an object with an integer 'step'", file=str(path), row=number)
        rows.append(row)
    return rows


def _finite(value: Metric) -> Metric:
    if isinstance(value, Mapping):
        return {name: _finite(inner) for name, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
