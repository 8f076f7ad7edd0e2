"""Parquet: rows out of Arrow's types as plain JSON values, and into columns without loss.

Reading: a null within a struct means that the key is absent, because a typed struct has no other way to say so. A
column of Parquet's JSON type holds JSON text of any value.

Writing: a first pass over all rows finds each column's type. A column whose values all have one exact shape is typed;
any other (objects with different keys, content that is now text and now a list) is written as JSON text. So nothing is
widened, and nothing gains a key that it did not have. Memory holds one batch.
"""

from __future__ import annotations

import base64
import datetime
import decimal
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from understudy.errors import FormatError
from understudy.types.message import JSON

from .position import ReadPosition
from .rows import BadRow, Row, dump_row, parse_row

_READ_BATCH_ROWS = 256
_WRITE_BATCH_ROWS = 1024
_INT64 = range(-(2**63), 2**63)
_EXACT_IN_FLOAT = range(-(2**53), 2**53 + 1)

Convert = Callable[[Any], JSON]


def read_parquet(file: str, position: ReadPosition) -> Iterator[Row | BadRow]:
    """Read the rows of a Parquet file, a batch of a row group at a time.

    Args:
        position: is told the share of the rows that has been read.

    Raises:
        FormatError: it is no Parquet file, or a row group is broken.
    """
    try:
        with pq.ParquetFile(file) as parquet:
            json_columns = [
                column.name
                for column in (parquet.schema.column(i) for i in range(len(parquet.schema.names)))
                if column.logical_type.type == "JSON" and column.path == column.name
            ]
            converts = {field.name: convert for field in parquet.schema_arrow if (convert := _converter(field.type))}
            number = 0
            for batch in parquet.iter_batches(batch_size=_READ_BATCH_ROWS):
                position.set_share(number / parquet.metadata.num_rows)
                for i in range(batch.num_rows):
                    number += 1
                    yield _read_row(batch, i, file, number, json_columns, converts)
    except (pa.ArrowException, ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise FormatError(f"the Parquet file is broken: {error}", mend="fetch or write the file again") from error


def _read_row(
    batch: pa.RecordBatch, index: int, file: str, number: int, json_columns: list[str], converts: dict[str, Convert]
) -> Row | BadRow:
    name, raw = "", b""
    try:
        row: dict[str, JSON] = {}
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            value = column[index].as_py()
            if value is None:
                continue
            if name in json_columns:
                raw = value.encode("utf-8", "surrogatepass")
                row[name] = parse_row(raw)
            else:
                row[name] = converts[name](value) if name in converts else value
        return Row(row, file, number)
    except UnicodeDecodeError:
        return BadRow(FormatError("the text is not UTF-8", file=file, row=number, field=name), raw)
    except (ValueError, OverflowError) as error:
        return BadRow(FormatError(f"the value cannot be read: {error}", file=file, row=number, field=name), raw)
    except FormatError as error:
        return BadRow(error.at(file=file, row=number, field=name), raw)


def _converter(kind: pa.DataType) -> Convert | None:
    """Return what turns Python values of an Arrow type into plain JSON values; None when they are plain already."""
    if pa.types.is_struct(kind):
        inner = {field.name: _converter(field.type) for field in kind}
        return lambda value: {
            key: convert(item) if (convert := inner.get(key)) else item
            for key, item in value.items()
            if item is not None
        }
    if pa.types.is_map(kind):
        item_converter = _converter(kind.item_type) or _same
        return lambda value: {str(key): item if item is None else item_converter(item) for key, item in value}
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        convert_item = _converter(kind.value_type)
        return None if convert_item is None else lambda value: [i if i is None else convert_item(i) for i in value]
    if pa.types.is_dictionary(kind):
        return _converter(kind.value_type)
    plain = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_null)
    text = (pa.types.is_string, pa.types.is_large_string, getattr(pa.types, "is_string_view", pa.types.is_string))
    return None if any(test(kind) for test in (*plain, *text)) else _plain


def _same(value: JSON) -> JSON:
    return value


def _plain(value: Any) -> JSON:
    """Return a JSON value for one that JSON has no type for: ISO 8601 for times, base64 for bytes."""
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, decimal.Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    return value if isinstance(value, str | int | float | list | dict) else str(value)


def write_parquet(path: str, read: Callable[[], Iterable[dict[str, JSON]]]) -> None:
    """Write rows.

    Args:
        path: the file; an existing one is overwritten.
        read: gives the rows from the beginning, each time that it is called.

    Raises:
        FormatError: the name of a column has no UTF-8.
    """
    shapes: dict[str, Shape] = {}
    for row in read():
        for name, value in row.items():
            shapes[name] = merge(shapes.get(name), shape_of(value), at_top=True)
    for name in shapes:
        if not _is_utf8(name):
            raise FormatError(f"Parquet cannot name a column {name!r}", field=ascii(name), mend="write .jsonl")
    columns = {name: _arrow_type(shape) for name, shape in shapes.items()}
    schema = pa.schema([pa.field(name, kind or pa.json_()) for name, kind in columns.items()])
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        batch: list[dict[str, JSON]] = []
        for row in read():
            batch.append(row)
            if len(batch) == _WRITE_BATCH_ROWS:
                writer.write_batch(_batch(batch, schema, columns))
                batch = []
        writer.write_batch(_batch(batch, schema, columns))


def _batch(rows: list[dict[str, JSON]], schema: pa.Schema, columns: dict[str, pa.DataType | None]) -> pa.RecordBatch:
    arrays = []
    for name, kind in columns.items():
        values = [row.get(name) for row in rows]
        if kind is None:
            texts = pa.array([None if value is None else dump_row(value).decode() for value in values], pa.string())
            arrays.append(pa.ExtensionArray.from_storage(pa.json_(), texts))
        else:
            arrays.append(pa.array(values, kind))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


Shape = str | tuple[str, Any]
"""What a value looks like: null, bool, int, long (an integer beyond the exact ones of a float), float, str, json, or
(list, shape) or (struct, ((key, shape), …))."""


def shape_of(value: JSON) -> Shape:
    """Return the shape of one value; ``json`` for what no Arrow type holds exactly."""
    if value is None or isinstance(value, bool | float):
        return "null" if value is None else type(value).__name__
    if isinstance(value, int):
        return "int" if value in _EXACT_IN_FLOAT else "long" if value in _INT64 else "json"
    if isinstance(value, str):
        return "str" if _is_utf8(value) else "json"
    if isinstance(value, list | tuple):
        item: Shape = "null"
        for one in value:
            item = merge(item, shape_of(one))
        return "json" if item == "json" else ("list", item)
    if isinstance(value, dict) and value and all(isinstance(key, str) and _is_utf8(key) for key in value):
        fields = tuple((key, shape_of(one)) for key, one in value.items())
        # A null within a struct would be read back as an absent key.
        return "json" if any(shape in ("json", "null") for _, shape in fields) else ("struct", fields)
    return "json"


def _is_utf8(text: str) -> bool:
    """Say whether UTF-8, and so Parquet, can hold a text. JSON text can escape a lone surrogate."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def merge(a: Shape | None, b: Shape, *, at_top: bool = False) -> Shape:
    """Return the shape that holds values of both shapes exactly. Only a plain column joins int and float."""
    if a is None or a == b or a == "null":
        return b
    if b == "null":
        return a
    if isinstance(a, tuple) and isinstance(b, tuple) and a[0] == b[0] == "list":
        item = merge(a[1], b[1])
        return "json" if item == "json" else ("list", item)
    if isinstance(a, tuple) and isinstance(b, tuple) and a[0] == b[0] == "struct":
        if [key for key, _ in a[1]] != [key for key, _ in b[1]]:
            return "json"
        fields = tuple((key, merge(x, y)) for (key, x), (_, y) in zip(a[1], b[1], strict=True))
        return "json" if any(shape == "json" for _, shape in fields) else ("struct", fields)
    if {a, b} == {"int", "long"}:
        return "long"
    return "float" if at_top and {a, b} == {"int", "float"} else "json"


def _arrow_type(shape: Shape) -> pa.DataType | None:
    """Return the Arrow type of a shape; None for JSON text."""
    if isinstance(shape, tuple):
        name, inner = shape
        if name == "list":
            return pa.list_(_arrow_type(inner))
        return pa.struct([pa.field(key, _arrow_type(one)) for key, one in inner])
    scalars = {
        "null": pa.null(),
        "bool": pa.bool_(),
        "int": pa.int64(),
        "long": pa.int64(),
        "float": pa.float64(),
        "str": pa.string(),
    }
    return scalars.get(shape)
