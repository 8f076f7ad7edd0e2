"""Zstandard streams that notice when they are cut.

The reader of the package ``zstandard`` takes a cut stream for a finished one. Here the end of the file within a frame
is an error, raised after everything that could still be decompressed was given out.
"""

from __future__ import annotations

import io
from typing import BinaryIO

import zstandard

from understudy.errors import FormatError

# Small, because one compressed byte may stand for very many: what one read can give out stays bounded.
_INPUT_BYTES = 8 * 1024
_MAX_WINDOW_BYTES = 2**31


class ZstdReader(io.RawIOBase):
    """The decompressed bytes of one or more frames that follow one another.

    Raises:
        FormatError: the data is corrupt, or ends within a frame.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._context = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES)
        self._frame: zstandard.ZstdDecompressionObj | None = None
        self._unread = b""
        self._out = memoryview(b"")

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._stream.close()
        super().close()

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._out:
            data = self._unread or self._stream.read(_INPUT_BYTES)
            self._unread = b""
            if not data:
                if self._frame is not None:
                    raise FormatError("the zstd data is cut off", mend="fetch or write the file again")
                return 0
            self._out = memoryview(self._decompress(data))
        count = min(len(buffer), len(self._out))
        buffer[:count] = self._out[:count]
        self._out = self._out[count:]
        return count

    def _decompress(self, data: bytes) -> bytes:
        if self._frame is None:
            self._frame = self._context.decompressobj()
        try:
            out = self._frame.decompress(data)
        except zstandard.ZstdError as error:
            raise FormatError(f"the zstd data is broken: {error}", mend="fetch or write the file again") from None
        if self._frame.eof:
            self._unread = self._frame.unused_data
            self._frame = None
        return out
