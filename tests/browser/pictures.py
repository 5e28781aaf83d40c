"""Pictures of pages, small enough to keep: Chromium's PNG with a palette of 256 colors."""

from __future__ import annotations

import struct
import zlib
from collections import Counter
from typing import Final

SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
RGB: Final = 3
PALETTE: Final = 256


def smaller(png: bytes) -> bytes:
    """Return the same picture with a palette; text and lines lose nothing that can be seen."""
    chunks = dict(_chunks(png))
    width, height, depth, kind = struct.unpack(">IIBB", chunks[b"IHDR"][:10])
    assert (depth, kind) == (8, 2), "Chromium writes 8 bits of red, green and blue"
    rows = _rows(zlib.decompress(chunks[b"IDAT"]), width * RGB, height)
    pixels = [row[x : x + RGB] for row in rows for x in range(0, width * RGB, RGB)]
    palette, places = _palette(Counter(pixels))
    indexes = bytes(map(places.__getitem__, pixels))
    lines = b"".join(b"\0" + indexes[y : y + width] for y in range(0, width * height, width))
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    parts = ((b"IHDR", header), (b"PLTE", palette), (b"IDAT", zlib.compress(lines, 9)))
    return SIGNATURE + b"".join(_chunk(*part) for part in (*parts, (b"IEND", b"")))


def _chunks(png: bytes) -> list[tuple[bytes, bytes]]:
    found: dict[bytes, bytes] = {}
    place = len(SIGNATURE)
    while place < len(png):
        size, name = struct.unpack(">I4s", png[place : place + 8])
        found[name] = found.get(name, b"") + png[place + 8 : place + 8 + size]
        place += 12 + size
    return list(found.items())


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + _checksum(name + content)


def _checksum(content: bytes) -> bytes:
    return struct.pack(">I", zlib.crc32(content))


def _rows(filtered: bytes, stride: int, height: int) -> list[bytes]:
    """Undo the filters of PNG, each of which says what was subtracted from every byte."""
    rows, above = [], bytes(stride)
    for y in range(height):
        start = y * (stride + 1)
        line = bytearray(filtered[start + 1 : start + 1 + stride])
        _unfilter(filtered[start], line, above)
        above = bytes(line)
        rows.append(above)
    return rows


def _unfilter(kind: int, line: bytearray, above: bytes) -> None:
    if kind == 2:
        line[:] = bytes((byte + up) & 255 for byte, up in zip(line, above, strict=True))
        return
    guess = {0: None, 1: _left, 3: _average, 4: _paeth}[kind]
    if guess is None:
        return
    before = bytes(RGB)
    for x in range(0, len(line), RGB):
        corner = above[x - RGB : x] if x else bytes(RGB)
        near = zip(line[x : x + RGB], before, above[x : x + RGB], corner, strict=True)
        before = bytes((byte + guess(left, up, far)) & 255 for byte, left, up, far in near)
        line[x : x + RGB] = before


def _left(left: int, _up: int, _corner: int) -> int:
    return left


def _average(left: int, up: int, _corner: int) -> int:
    return (left + up) // 2


def _paeth(left: int, up: int, corner: int) -> int:
    to_left, to_up, to_corner = abs(up - corner), abs(left - corner), abs(left + up - 2 * corner)
    if to_left <= to_up and to_left <= to_corner:
        return left
    return up if to_up <= to_corner else corner


def _palette(colors: Counter[bytes]) -> tuple[bytes, dict[bytes, int]]:
    """Return the main colors, and for every color the place of the nearest of them."""
    main = [color for color, _ in colors.most_common(PALETTE)]
    places = {color: place for place, color in enumerate(main)}
    for color in colors.keys() - places.keys():
        places[color] = min(range(len(main)), key=lambda place: _distance(color, main[place]))
    return b"".join(main), places


def _distance(one: bytes, other: bytes) -> int:
    return sum((a - b) ** 2 for a, b in zip(one, other, strict=True))
