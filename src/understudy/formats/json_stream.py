"""JSON lines, arrays and concatenated values, read one value at a time from a stream of bytes.

Every reader yields `Row` and `BadRow` in the order of the file, and goes on after a bad row wherever the next one can
be found. Memory holds one row, never the file.
"""

from __future__ import annotations

import codecs
import io
import json
import re
import zlib
from collections.abc import Iterator
from typing import Protocol

from understudy.errors import FormatError
from understudy.types.message import JSON

from .rows import DECODER, BadRow, Row, parse_row, syntax_error


class Stream(Protocol):
    """What the readers need of a stream of bytes. `read1` gives what one read of the source brings.

    `read` would read on, and so lose bytes that came before a fault.
    """

    def read1(self, size: int, /) -> bytes: ...

    def readline(self, size: int, /) -> bytes: ...

    def close(self) -> None: ...


SNIFF_BYTES = 64 * 1024
_BOM = codecs.BOM_UTF8
_KEPT_BYTES = 64 * 1024  # of a bad row whose end cannot be told or that is over the limit
_CHUNK_CHARS = 1024 * 1024
# A data set written as one object whose first key holds its items. Each item is a row of its own.
_ENVELOPE = re.compile(r'\{\s*"(trajectories)"\s*:\s*\[')
_SPACE = re.compile(r"[ \t\r\n]*")
_PARTNERS = {"]": "[", "}": "{"}
_STRUCTURE = re.compile(r'\\.|["{}\[\],]', re.DOTALL)


def sniff(stream: Stream) -> tuple[Stream, bool]:
    """Say whether a stream holds JSON lines (else an array, one object, or several); return it unread."""
    head = b""
    fault: Exception | None = None
    try:
        while len(head) < SNIFF_BYTES and (more := stream.read1(SNIFF_BYTES - len(head))):
            head += more
    except (OSError, EOFError, zlib.error, FormatError) as error:
        fault = error
    text = head.removeprefix(_BOM).lstrip()
    lines = text.split(b"\n") if len(head) < SNIFF_BYTES else text.split(b"\n")[:-1]
    lines = [line for line in lines if line.strip()][:16]
    if text[:1] == b"[":
        by_lines = False
    elif _ENVELOPE.match(text[:64].decode("utf-8", "replace")):
        by_lines = len(lines) > 1 and _parses(lines[0])
    else:
        by_lines = any(line[:1] == b"{" and _parses(line) for line in lines)
    return io.BufferedReader(Replayed(stream, head, fault), buffer_size=_CHUNK_CHARS), by_lines


def read_lines(stream: Stream, file: str, max_row_bytes: int) -> Iterator[Row | BadRow]:
    r"""Read JSON lines. Lines end at ``\n`` only; blank lines are counted and passed over."""
    number = 0
    while line := stream.readline(max_row_bytes + 1):
        number += 1
        if len(line) > max_row_bytes and not line.endswith(b"\n"):
            while (rest := stream.readline(_CHUNK_CHARS)) and not rest.endswith(b"\n"):
                pass
            yield BadRow(_too_long(max_row_bytes).at(file=file, row=number), line[:_KEPT_BYTES])
            continue
        data = line.removeprefix(_BOM).strip(b" \t\r\n")
        if not data:
            continue
        try:
            yield Row(parse_row(data), file, number, data)
        except FormatError as error:
            yield BadRow(error.at(file=file, row=number), data)


def read_values(stream: Stream, file: str, max_row_bytes: int) -> Iterator[Row | BadRow]:
    """Read the elements of an array, or values that follow one another."""
    source = _Source(stream, max_row_bytes)
    number = 0
    try:
        envelope = source.open_list()
        while (char := source.peek()) and not (envelope is not None and char == "]"):
            number += 1
            try:
                value = source.value()
            except FormatError as error:
                yield BadRow(error.at(file=file, row=number), source.excerpt())
                if not source.skip_value(in_array=envelope is not None):
                    return
            else:
                yield Row({envelope: [value]} if envelope else value, file, number)
            if envelope is not None and not source.separator():
                missing = FormatError("expected a comma or the end of the array", file=file, row=number + 1)
                yield BadRow(missing, source.excerpt())
        if envelope is not None:
            source.close_list(envelope, number)
    except FormatError as error:
        yield BadRow(error.at(file=file, row=number + 1), source.excerpt())


def _too_long(max_row_bytes: int) -> FormatError:
    mend = "raise max_row_bytes (--max-row-bytes), or check that the file holds one row a line"
    return FormatError(f"the row is longer than max_row_bytes ({max_row_bytes:,})", mend=mend)


def _parses(line: bytes) -> bool:
    try:
        parse_row(line)
    except FormatError as error:
        return "stands twice" in error.reason
    return True


def _may_go_on(error: ValueError | RecursionError) -> bool:
    """Say whether the parser may have stopped only because the rest of the text is not read yet."""
    if not isinstance(error, json.JSONDecodeError):
        return False
    # "-Infinity" is the longest token, escapes included, that can be cut in two.
    return error.msg.startswith("Unterminated string") or error.pos >= len(error.doc) - len("-Infinity")


class Replayed(io.RawIOBase):
    """A stream whose first bytes, and the fault that followed them, were already met. Closing leaves it open."""

    def __init__(self, rest: Stream, head: bytes = b"", fault: Exception | None = None) -> None:
        self._head = memoryview(head)
        self._fault = fault
        self._rest = rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data: bytes | memoryview
        if self._head:
            data, self._head = self._head[: len(buffer)], self._head[len(buffer) :]
        elif self._fault is not None:
            raise self._fault
        else:
            data = self._rest.read1(len(buffer))
        buffer[: len(data)] = data
        return len(data)


class _Source:
    """Text that is read as it is needed, with the position of the next value."""

    def __init__(self, stream: Stream, max_row_bytes: int) -> None:
        self.text = ""
        self.position = 0
        self._stream = stream
        self._max_chars = max_row_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._ended = False

    def fill(self) -> bool:
        """Drop what was consumed and read on, at least as much as is held; False at the end."""
        if self._ended:
            return False
        self.text = self.text[self.position :]
        self.position = 0
        self._ended = True  # also when reading fails
        data = self._stream.read1(max(_CHUNK_CHARS, len(self.text)))
        self._ended = not data
        try:
            self.text += self._decoder.decode(data, final=self._ended)
        except UnicodeDecodeError:
            self._ended = True
            raise FormatError("the file is not UTF-8 from here on", mend="convert the file to UTF-8") from None
        return True

    def peek(self) -> str:
        """Return the next character that is no white space; empty at the end."""
        while True:
            match = _SPACE.match(self.text, self.position)
            self.position = match.end() if match else self.position
            if self.position < len(self.text):
                return self.text[self.position]
            if not self.fill():
                return ""

    def value(self) -> JSON:
        """Parse the next value, reading on until it is whole."""
        while True:
            try:
                value, end = DECODER.raw_decode(self.text, self.position)
                # A number that ends where the text ends may go on in what is not read yet.
                if end < len(self.text) or self._ended or not isinstance(value, int | float):
                    if end - self.position > self._max_chars:
                        raise _too_long(self._max_chars)
                    self.position = end
                    return value
            except (ValueError, RecursionError) as error:
                if self._ended or not _may_go_on(error):
                    raise syntax_error(error, self.position) from None
            if len(self.text) - self.position > self._max_chars:
                raise _too_long(self._max_chars)
            self.fill()

    def separator(self) -> bool:
        """Pass over the comma between two elements; False when something else stands there."""
        char = self.peek()
        if char == ",":
            self.position += 1
        return char in (",", "]", "")

    def open_list(self) -> str | None:
        """Pass over the beginning of a list of rows: an array (returns ``""``), or an envelope (returns its key)."""
        char = self.peek()
        if char == "[":
            self.position += 1
            return ""
        match = _ENVELOPE.match(self.text, self.position) if char == "{" else None
        if match is None:
            return None
        self.position = match.end()
        return match.group(1)

    def close_list(self, envelope: str, num_items: int) -> None:
        """Pass over the end of a list of rows; make sure that it is whole and that nothing follows it."""
        if self.peek() != "]":
            raise FormatError("the array is cut off", mend="the file may be incomplete: fetch or write it again")
        self.position += 1
        if envelope:
            if self.peek() not in (",", "}"):
                raise FormatError("the object is cut off", mend="the file may be incomplete: fetch or write it again")
            # What is left of the object is an object of its own, with a brace in place of the comma.
            brace = "{" if self.peek() == "," else "{}"
            self.text = brace + self.text[self.position + 1 :]
            self.position = 0
            stated = self.value().get(f"num_{envelope}", num_items)
            if stated != num_items:
                raise FormatError(f"the file states {stated} {envelope}, but holds {num_items}")
        if self.peek():
            raise FormatError("text follows the end of the list of rows")

    def skip_value(self, *, in_array: bool) -> bool:
        """Pass over a value that does not parse, by its brackets and quotes; False when its end is not found.

        A closing bracket closes all that was opened since its partner, so one that is missing costs no other value.
        """
        opened: list[str] = []
        num_open = {"[": 0, "{": 0}
        in_string, scanned = False, self.position
        while True:
            for match in _STRUCTURE.finditer(self.text, scanned):
                token = match.group()
                if token == '"':
                    in_string = not in_string
                elif in_string or token[0] == "\\":
                    continue
                elif token in num_open:
                    opened.append(token)
                    num_open[token] += 1
                elif not opened and in_array and token in ",]":
                    self.position = match.start()
                    return True
                elif token in _PARTNERS:
                    if num_open[_PARTNERS[token]]:
                        while (last := opened.pop()) != _PARTNERS[token]:
                            num_open[last] -= 1
                        num_open[last] -= 1
                    if not opened:
                        self.position = match.end()
                        return True
            # A backslash at the very end belongs to a character that is not read yet.
            self.position = len(self.text) - self.text.endswith("\\")
            if not self.fill():
                return False
            scanned = 0

    def excerpt(self) -> bytes:
        """Return the beginning of what stands at the position."""
        return self.text[self.position : self.position + _KEPT_BYTES].encode("utf-8", "surrogatepass")
