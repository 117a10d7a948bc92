"""A PNG in strips, from the top, so that a part of it costs no more memory than a few strips, however large it is.

Pillow decodes a PNG whole or not at all. The rows of a strip are unpacked here, and given to Pillow as a PNG of their own that
begins with the row above, because rows are stored as differences to it. Takes about a third longer than Pillow alone.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from io import BytesIO
from typing import BinaryIO

from PIL import Image

SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Bytes of a pixel of eight bits, by the kind of its colours."""
BYTES_A_STRIP = 1 << 20
BYTES_READ = 1 << 16
COLOURS = (b"PLTE", b"tRNS")
"""Chunks that say what the values of pixels mean."""


class PngStrips:
    """A PNG file that can be read in strips.

    Args:
        stream: of the file.

    Attributes:
        is_plain: whether it can: its pixels have eight bits a channel, and their rows follow each other.

    Raises:
        OSError: the file ends before its image.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._colours: list[tuple[bytes, bytes]] = []
        self._inflate = zlib.decompressobj()
        header = b"\0" * 13
        stream.seek(len(SIGNATURE))
        while (kind := self._next_chunk()) != b"IDAT":
            if kind == b"IHDR":
                header = stream.read(self._left)
            elif kind in COLOURS:
                self._colours.append((kind, stream.read(self._left)))
            else:
                stream.seek(self._left, 1)
            stream.seek(4, 1)
        self._width, self._height, depth, colours, *_, interlace = struct.unpack(">IIBBBBB", header[:13])
        self._kind = header[8:13]
        self.is_plain = depth == 8 and colours in CHANNELS and not interlace
        self._row_bytes = 1 + self._width * CHANNELS.get(colours, 0)

    def strips(self, multiple: int) -> Iterator[tuple[int, Image.Image]]:
        """The first row of each strip and the strip, as Pillow decodes it, from the top on; once alone.

        Args:
            multiple: of rows that each strip has, but for the last one.

        Raises:
            OSError: the file is truncated or damaged.
        """
        rows = max(1, BYTES_A_STRIP // (self._row_bytes * multiple)) * multiple
        above = b""
        for top in range(0, self._height, rows):
            number = min(rows, self._height - top)
            strip = self._decoded(above + self._unpacked(number * self._row_bytes), number + bool(above))
            bottom = strip.crop((0, strip.height - 1, strip.width, strip.height))
            if above:
                strip = strip.crop((0, 1, strip.width, strip.height))
            above = b"\0" + bottom.tobytes()
            yield top, strip

    def _next_chunk(self) -> bytes:
        head = self._stream.read(8)
        if len(head) < 8:
            raise OSError("image file is truncated")
        self._left, kind = struct.unpack(">I4s", head)
        return bytes(kind)

    def _unpacked(self, length: int) -> bytes:
        """The next so many bytes of the rows."""
        parts = []
        packed = self._inflate.unconsumed_tail
        while length:
            try:
                part = self._inflate.decompress(packed or self._packed(), length)
            except zlib.error as error:
                raise OSError(f"broken PNG file ({error})") from error
            parts.append(part)
            length -= len(part)
            packed = self._inflate.unconsumed_tail
        return b"".join(parts)

    def _packed(self) -> bytes:
        """Some more bytes as they are stored."""
        while not self._left:
            self._stream.seek(4, 1)
            if self._inflate.eof or self._next_chunk() != b"IDAT":
                raise OSError("image file is truncated")
        some = self._stream.read(min(self._left, BYTES_READ))
        if not some:
            raise OSError("image file is truncated")
        self._left -= len(some)
        return some

    def _decoded(self, rows: bytes, number: int) -> Image.Image:
        header = struct.pack(">II", self._width, number) + self._kind
        chunks = [(b"IHDR", header), *self._colours, (b"IDAT", zlib.compress(rows, 0)), (b"IEND", b"")]
        with BytesIO(SIGNATURE + b"".join(_chunk(kind, body) for kind, body in chunks)) as file:
            strip: Image.Image = Image.open(file, formats=["PNG"])
            strip.load()
        return strip


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
