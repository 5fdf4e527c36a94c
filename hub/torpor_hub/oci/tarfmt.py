"""Tar headers in the PAX format: the few that a layer needs, written and read strictly.

Own code, because a layer holds a PAX header for nearly every file (times in nanoseconds) and :mod:`tarfile` costs several
times as much for each, decodes names, and reads formats that a layer never uses. Formats: POSIX.1-2001 ``pax``; extended
attributes as ``SCHILY.xattr.<name>``, with ``=`` and ``%`` in names escaped as GNU tar does.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from torpor_hub.errors import CorruptImage

BLOCK = 512
END = bytes(2 * BLOCK)

FILE, HARD_LINK, SYMLINK, DIRECTORY, FIFO = b"0", b"1", b"2", b"5", b"6"
KINDS = {FILE, HARD_LINK, SYMLINK, DIRECTORY, FIFO}
DEVICES = {b"3": "a character device", b"4": "a block device"}
EXTENDED = b"x"

XATTR = b"SCHILY.xattr."
MAX_IDENTITY = 2**32 - 2
MAX_EXTENDED_BYTES = 64 * 1024 * 1024

_HEADER = struct.Struct("100s8s8s8s12s12s8sc100s6s2s247x")
_CHECKSUM = slice(148, 156)
_OCTAL_7, _OCTAL_11 = 8**7, 8**11


class Entry(NamedTuple):
    """One member of a layer.

    To be written, ``path`` is relative, without a trailing slash, and empty for the folder itself; as read, it is the name
    in the archive, unchecked.
    """

    path: bytes
    kind: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    target: bytes = b""
    xattrs: tuple[tuple[bytes, bytes], ...] = ()


def header(entry: Entry) -> bytes:
    """Return the header blocks of ``entry``, the extended one first where the plain one cannot hold everything."""
    name = (entry.path + b"/" if entry.path else b"./") if entry.kind == DIRECTORY else entry.path
    seconds, nanoseconds = divmod(entry.mtime_ns, 1_000_000_000)
    records = b"".join(
        (
            _record(b"path", name) if len(name) > 100 else b"",
            _record(b"linkpath", entry.target) if len(entry.target) > 100 else b"",
            _record(b"uid", b"%d" % entry.uid) if entry.uid >= _OCTAL_7 else b"",
            _record(b"gid", b"%d" % entry.gid) if entry.gid >= _OCTAL_7 else b"",
            _record(b"size", b"%d" % entry.size) if entry.size >= _OCTAL_11 else b"",
            _record(b"mtime", _decimal(entry.mtime_ns)) if nanoseconds or not 0 <= seconds < _OCTAL_11 else b"",
            *(_record(XATTR + _escaped(key), value) for key, value in entry.xattrs),
        )
    )
    plain = _block(
        name[:100],
        entry.mode,
        entry.uid if entry.uid < _OCTAL_7 else 0,
        entry.gid if entry.gid < _OCTAL_7 else 0,
        entry.size if entry.size < _OCTAL_11 else 0,
        min(max(seconds, 0), _OCTAL_11 - 1),
        entry.kind,
        entry.target[:100],
    )
    if not records:
        return plain
    return _extended_block(len(records)) + records + padding(len(records)) + plain


def padding(size: int) -> bytes:
    """Return the zeros between content of ``size`` bytes and the next block."""
    return bytes(-size % BLOCK)


def _block(name: bytes, mode: int, uid: int, gid: int, size: int, mtime: int, kind: bytes, target: bytes) -> bytes:
    packed = bytearray(_HEADER.size)
    numbers = (b"%07o" % mode, b"%07o" % uid, b"%07o" % gid, b"%011o" % size, b"%011o" % mtime)
    _HEADER.pack_into(packed, 0, name, *numbers, b" " * 8, kind, target, b"ustar", b"00")
    packed[_CHECKSUM] = b"%06o\0 " % sum(packed)
    return bytes(packed)


@functools.lru_cache(maxsize=1024)
def _extended_block(size: int) -> bytes:
    return _block(b"PaxHeader", 0o644, 0, 0, size, 0, EXTENDED, b"")


def _record(key: bytes, value: bytes) -> bytes:
    length = len(key) + len(value) + 3
    total = length + len(str(length))
    total = length + len(str(total))
    return b"%d %s=%s\n" % (total, key, value)


def _decimal(nanoseconds: int) -> bytes:
    sign = b"-" if nanoseconds < 0 else b""
    seconds, rest = divmod(abs(nanoseconds), 1_000_000_000)
    return b"%s%d.%09d" % (sign, seconds, rest)


def _escaped(key: bytes) -> bytes:
    return key.replace(b"%", b"%25").replace(b"=", b"%3D")


def _unescaped(key: bytes) -> bytes:
    return key.replace(b"%3D", b"=").replace(b"%25", b"%")


class Reader:
    """The members of a tar stream in order; the content of each is read before the next is asked for.

    ``read(size)`` returns exactly ``size`` bytes unless the stream ends.
    """

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self._left = 0
        self._padding = 0

    def __iter__(self) -> Iterator[Entry]:
        """Yield each member.

        Raises:
            CorruptImage: the stream ends early, or holds what no layer of ours holds.
        """
        while True:
            for _ in self.content():
                continue
            self._exactly(self._padding)
            block = self._exactly(BLOCK)
            if not block.strip(b"\0"):
                return
            records: Mapping[bytes, bytes] = {}
            if _kind(block) == EXTENDED:
                records = self._records(_number(block[124:136]))
                block = self._exactly(BLOCK)
            entry = _entry(block, records)
            self._left, self._padding = entry.size, -entry.size % BLOCK
            yield entry

    def content(self, chunk_bytes: int = 1024 * 1024) -> Iterator[bytes]:
        """Yield what is left of the present member's content, at most ``chunk_bytes`` at a time."""
        while self._left:
            chunk = self._exactly(min(self._left, chunk_bytes))
            self._left -= len(chunk)
            yield chunk

    def _exactly(self, size: int) -> bytes:
        content = self._read(size)
        if len(content) != size:
            raise CorruptImage("the archive ends in the middle of an entry")
        return content

    def _records(self, size: int) -> dict[bytes, bytes]:
        if size > MAX_EXTENDED_BYTES:
            raise CorruptImage(f"the archive has an extended header of {size} bytes, over {MAX_EXTENDED_BYTES}")
        content = self._exactly(size)
        self._exactly(-size % BLOCK)
        return _parsed_records(content)


def _parsed_records(content: bytes) -> dict[bytes, bytes]:
    records: dict[bytes, bytes] = {}
    start = 0
    while start < len(content):
        space = content.find(b" ", start, start + 20)
        length = content[start:space]
        end = start + int(length) if space > 0 and length.isdigit() else 0
        key, found, value = content[space + 1 : end - 1].partition(b"=")
        if not found or end > len(content) or content[end - 1 : end] != b"\n":
            raise CorruptImage("the archive has a broken extended header")
        records[key] = value
        start = end
    return records


def _kind(block: bytes) -> bytes:
    summed = sum(block) - sum(block[_CHECKSUM]) + 8 * 0x20
    if _number(block[_CHECKSUM]) != summed:
        raise CorruptImage("the archive has a header with a wrong checksum")
    return block[156:157]


def _entry(block: bytes, records: Mapping[bytes, bytes]) -> Entry:
    kind = _kind(block)
    kind = FILE if kind == b"\0" else kind
    prefix = _text(block[345:500])
    name = records.get(b"path") or (prefix + b"/" if prefix else b"") + _text(block[:100])
    if kind not in KINDS and kind not in DEVICES:
        raise CorruptImage(f"the archive has an entry of the unknown type {kind!r}")
    size = _integer(records.get(b"size")) or _number(block[124:136])
    if size and kind != FILE:
        raise CorruptImage("the archive has content in an entry that is not a file")
    return Entry(
        path=name,
        kind=kind,
        mode=_number(block[100:108]) & 0o7777,
        uid=_identity(records.get(b"uid"), block[108:116]),
        gid=_identity(records.get(b"gid"), block[116:124]),
        size=size,
        mtime_ns=_nanoseconds(records[b"mtime"]) if b"mtime" in records else _number(block[136:148]) * 1_000_000_000,
        target=records.get(b"linkpath") or _text(block[157:257]),
        xattrs=tuple(
            (_unescaped(key.removeprefix(XATTR)), value) for key, value in records.items() if key.startswith(XATTR)
        ),
    )


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _number(field: bytes) -> int:
    digits = field.strip(b"\0 ") or b"0"
    if not digits.isdigit() or b"8" in digits or b"9" in digits:
        raise CorruptImage(f"the archive has a header with the number {field!r}")
    return int(digits, 8)


def _integer(text: bytes | None) -> int:
    if text is None:
        return 0
    if not text.isdigit() or len(text) > 18:
        raise CorruptImage(f"the archive has an extended header with the number {text[:30]!r}")
    return int(text)


def _identity(text: bytes | None, field: bytes) -> int:
    number = _integer(text) or _number(field)
    if number > MAX_IDENTITY:
        raise CorruptImage(f"the archive has an entry of the impossible user or group {number}")
    return number


def _nanoseconds(text: bytes) -> int:
    sign, digits = (-1, text[1:]) if text.startswith(b"-") else (1, text)
    seconds, _, fraction = digits.partition(b".")
    return sign * (_integer(seconds) * 1_000_000_000 + _integer((fraction + b"0" * 9)[:9]))
