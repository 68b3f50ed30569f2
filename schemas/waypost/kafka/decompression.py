"""Unpack the payload of a record batch within a limit, whatever its bytes are.

Owns the framing of gzip, Snappy, LZ4 and Zstandard. Members, blocks and frames are found here, and libraries get only
whole ones, with an output buffer of bounded size. Knows nothing about records.

Brokers accept payloads that the libraries reject: trailing bytes, wrong content checksums, frames that end early after
the last record. The reference is what Kafka's Java client reads. So every codec unpacks part after part until one can't
be unpacked, and reports why; the reader of the records finds out whether anything is missing. Checksums inside the
payload are ignored, because the batch has one over all of its bytes.
"""

import struct
import zlib
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from waypost.errors import WaypostError

cramjam: Any
try:
    import cramjam
except ImportError:  # a broken installation
    cramjam = None

GZIP, SNAPPY, LZ4, ZSTD = 1, 2, 3, 4

PARTS: Final = 4096
"""Most gzip members, Snappy blocks or LZ4 blocks of one payload. Each takes about 2 µs, even if it is empty."""
ZSTD_FRAMES: Final = 1024
"""Most frames of one Zstandard payload. Each takes about 10 µs, even if it is empty."""
_ZSTD_BLOCKS: Final = 65_536
_LIKELY_BYTES, _LIKELY_RATIO = 8192, 8
# libzstd's words if it can't allocate the window of a frame, up to 128 MB. The frame may be fine.
_NO_MEMORY: Final = "not enough memory"

_INT: Final = struct.Struct(">i")
_WORD: Final = struct.Struct("<I")


class MissingCodecError(WaypostError):
    """A batch is compressed, and the package that unpacks it is not installed. No record was skipped."""


class Unpacked(NamedTuple):
    """Unpacked chunks in order, and the problem that ended unpacking, if any.

    There are no chunks if ``too_large``, that is, if the payload holds more than the limit.
    """

    chunks: list[bytes | memoryview]
    problem: str | None = None
    too_large: bool = False


def unpack(codec: int, payload: memoryview, limit: int) -> Unpacked:
    """Unpack a payload of up to ``limit`` bytes. No content of a payload raises an exception.

    Raises:
        MissingCodecError: If the codec needs cramjam, which is not installed.
    """
    unpacker = _UNPACKERS.get(codec)
    if unpacker is None:
        return Unpacked([], f"compression codec {codec} is unknown")
    if cramjam is None and codec != GZIP:
        raise MissingCodecError(
            f"A batch is compressed with {_NAMES[codec]}, so it can't be read here. Nothing was skipped. "
            "Install the codec: pip install cramjam"
        )
    work = _Work(limit)
    unpacker(payload, work)
    if work.too_large:
        return Unpacked([], f"it holds more than {limit:,} bytes", too_large=True)
    return Unpacked(work.chunks, work.problem)


class _Work:
    """Chunks so far, the rest of the limit, and the problem that ended unpacking."""

    def __init__(self, limit: int) -> None:
        self.left = limit
        self.chunks: list[bytes | memoryview] = []
        self.problem: str | None = None
        self.too_large = False

    def add(self, chunk: bytes | memoryview) -> None:
        self.chunks.append(chunk)
        self.left -= len(chunk)

    def decode(
        self, decoder: Callable[[Any, Any], int], part: memoryview, bound: int, known: bool = False
    ) -> bool:
        """Unpack a part of at most ``bound`` bytes, or exactly that many if the size is ``known``.

        Return False if it can't be unpacked or exceeds the limit.
        """
        if known and bound > self.left:
            self.too_large = True
            return False
        most = min(bound, self.left + 1)
        # Most parts are far below their bound, and clearing a large buffer takes as long as unpacking a small part.
        likely = max(_LIKELY_BYTES, _LIKELY_RATIO * len(part))
        for room in (most,) if known or likely >= most else (likely, most):
            chunk = _decoded(decoder, part, room)
            if chunk is not None and len(chunk) <= self.left:
                self.add(chunk)
                return True
        # If the size is unknown, the part may also be malformed somewhere past the limit. Either way it is rejected.
        self.too_large = most < bound or most > self.left
        return False


def _decoded(decoder: Callable[[Any, Any], int], part: memoryview, room: int) -> memoryview | None:
    """Return the content of a part; None if the part is malformed or the content needs more room."""
    chunk = bytearray(room)
    try:
        size = decoder(part, chunk)
    except Exception as error:  # of many types
        if _NO_MEMORY in str(error):
            raise MemoryError(f"A record batch can't be unpacked: {error}") from error
        return None
    return memoryview(chunk)[:size]


# gzip: a sequence of members. Java ignores whatever follows them.

_MEMBER: Final = b"\x1f\x8b\x08"
_HEADER_BYTES: Final = 10
_TRAILER_BYTES: Final = 8
_HAS_CHECKSUM, _HAS_EXTRA, _HAS_NAME, _HAS_COMMENT = 2, 4, 8, 16
_SMALL_STEP: Final = 1024


def _unpack_gzip(payload: memoryview, work: _Work) -> None:
    at = 0
    for number in range(PARTS + 1):
        if at >= len(payload):
            return
        start = _after_gzip_header(payload, at)
        if start is None:
            work.problem = "its gzip header is malformed"
            return
        if number == PARTS:
            break
        # zlib copies the input that it does not use, so only the first member gets all of it.
        end = _inflate(payload, start, len(payload) if number == 0 else _SMALL_STEP, work)
        if end is None:
            return
        at = end + _TRAILER_BYTES
    work.problem = f"it has more than {PARTS:,} gzip members"


def _inflate(payload: memoryview, start: int, step: int, work: _Work) -> int | None:
    """Inflate a member and return the end of its data; None if it doesn't end or exceeds the limit."""
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    chunks: list[bytes] = []
    left = work.left
    while not inflate.eof:
        piece = payload[start : start + step]
        if not piece:
            work.problem = "its gzip data ends early"
            return None
        try:
            chunk = inflate.decompress(piece, left + 1)
        except zlib.error:
            work.problem = "its gzip data is malformed"
            return None
        start += len(piece) - len(inflate.unused_data) - len(inflate.unconsumed_tail)
        left -= len(chunk)
        if left < 0:
            work.too_large = True
            return None
        chunks.append(chunk)
        step *= 4
    for chunk in chunks:
        work.add(chunk)
    return start


def _after_gzip_header(payload: memoryview, at: int) -> int | None:
    if bytes(payload[at : at + 3]) != _MEMBER or at + _HEADER_BYTES > len(payload):
        return None
    flags = payload[at + 3]
    at += _HEADER_BYTES
    if flags & _HAS_EXTRA:
        if at + 2 > len(payload):
            return None
        at += 2 + payload[at] + (payload[at + 1] << 8)
    for flag in (_HAS_NAME, _HAS_COMMENT):
        if flags & flag:
            at = _after_zero(payload, at)
    if flags & _HAS_CHECKSUM:
        at += 2
    return at if at <= len(payload) else None


def _after_zero(payload: memoryview, at: int) -> int:
    """Return the index after the next zero byte; past the end of the payload if there is none."""
    step = _SMALL_STEP
    while at < len(payload):
        piece = bytes(payload[at : at + step])
        if (found := piece.find(b"\0")) >= 0:
            return at + found + 1
        at += len(piece)
        step *= 4
    return len(payload) + 1


# Snappy: a raw block, or streams of blocks in the framing of snappy-java ("xerial"). Java ignores its version.

_XERIAL: Final = b"\x82SNAPPY\0"
_XERIAL_BYTES: Final = 16
_XERIAL_SIZE: Final = _INT.unpack(_XERIAL[:4])[0]


def _unpack_snappy(payload: memoryview, work: _Work) -> None:
    if bytes(payload[: len(_XERIAL)]) != _XERIAL:
        _snappy_block(payload, work)
        return
    at = _XERIAL_BYTES
    for _ in range(PARTS):
        # Java ignores up to three bytes after the last block.
        if at + _INT.size > len(payload):
            return
        size = _INT.unpack_from(payload, at)[0]
        if size == _XERIAL_SIZE:
            at += _XERIAL_BYTES
            continue
        at += _INT.size
        if size < 0 or at + size > len(payload):
            work.problem = "a Snappy block ends early"
            return
        if not _snappy_block(payload[at : at + size], work):
            return
        at += size
    if at < len(payload):
        work.problem = f"it has more than {PARTS:,} Snappy blocks"


def _snappy_block(block: memoryview, work: _Work) -> bool:
    try:
        size = cramjam.snappy.decompress_raw_len(block)
    except Exception:
        size = 0
    if work.decode(cramjam.snappy.decompress_raw_into, block, size, known=True):
        return True
    work.problem = "a Snappy block is malformed"
    return False


# LZ4: a frame of independent blocks. Java stops at its end mark.

_LZ4_MAGIC: Final = 0x184D2204
_LZ4_FLAGS, _LZ4_BLOCK_CHECKSUM, _LZ4_CONTENT_SIZE = 0xE3, 0x10, 0x08
_LZ4_VERSION_1_INDEPENDENT: Final = 0x60
_LZ4_STORED: Final = 0x80000000
_LZ4_MOST_RATIO: Final = 255


def _unpack_lz4(payload: memoryview, work: _Work) -> None:
    most = _lz4_block_bytes(payload)
    if most is None:
        work.problem = "its LZ4 frame header is malformed"
        return
    flags = payload[4]
    checksum = 4 if flags & _LZ4_BLOCK_CHECKSUM else 0
    at = 15 if flags & _LZ4_CONTENT_SIZE else 7
    for _ in range(PARTS):
        if at + _WORD.size > len(payload):
            work.problem = "its LZ4 frame ends early"
            return
        word = _WORD.unpack_from(payload, at)[0]
        size = word & ~_LZ4_STORED
        at += _WORD.size
        if size == 0:
            return
        block = payload[at : at + size]
        if len(block) < size or size > most:
            work.problem = "an LZ4 block is larger than its frame"
            return
        if word & _LZ4_STORED:
            if size > work.left:
                work.too_large = True
                return
            work.add(block)
        elif not work.decode(cramjam.lz4.decompress_block_into, block, min(most, size * _LZ4_MOST_RATIO)):
            work.problem = "an LZ4 block is malformed"
            return
        at += size + checksum
    work.problem = f"it has more than {PARTS:,} LZ4 blocks"


def _lz4_block_bytes(payload: memoryview) -> int | None:
    """Return the most bytes that a block of this frame holds; None if Kafka does not allow such a frame."""
    if len(payload) < 7 or _WORD.unpack_from(payload)[0] != _LZ4_MAGIC:
        return None
    code = payload[5] >> 4
    if payload[4] & _LZ4_FLAGS != _LZ4_VERSION_1_INDEPENDENT or not 4 <= code <= 7:
        return None
    return int(1 << 8 + 2 * code)


# Zstandard: frames, some of them skippable. Their blocks are walked to find a frame's end and the most it can hold.

_ZSTD_MAGIC: Final = 0xFD2FB528
_SKIPPABLE, _SKIPPABLE_MASK = 0x184D2A50, 0xFFFFFFF0
_ZSTD_BLOCK_BYTES: Final = 128 * 1024
_RAW, _REPEATED, _COMPRESSED = 0, 1, 2
_DICTIONARY_BYTES: Final = (0, 1, 2, 4)


class _ZstdFrame(NamedTuple):
    end: int
    bound: int  # most bytes that it can hold
    size: int | None  # bytes that it claims to hold


def _unpack_zstd(payload: memoryview, work: _Work) -> None:
    at, blocks = 0, _ZSTD_BLOCKS
    for _ in range(ZSTD_FRAMES):
        if at >= len(payload):
            return
        if at + 8 <= len(payload) and _WORD.unpack_from(payload, at)[0] & _SKIPPABLE_MASK == _SKIPPABLE:
            at += 8 + _WORD.unpack_from(payload, at + 4)[0]
            continue
        frame = _zstd_frame(payload, at, blocks)
        if frame is None:
            work.problem = "its Zstandard frame is malformed or ends early"
            return
        bound = frame.bound if frame.size is None else min(frame.bound, frame.size)
        if not work.decode(
            cramjam.zstd.decompress_into, payload[at : frame.end], bound, frame.size is not None
        ):
            work.problem = "its Zstandard data is malformed"
            return
        at = frame.end
    if at < len(payload):
        work.problem = f"it has more than {ZSTD_FRAMES:,} Zstandard frames"


def _zstd_frame(payload: memoryview, at: int, blocks: int) -> _ZstdFrame | None:
    """Return the extent of a frame; None if it is malformed or ends early."""
    end = len(payload)
    if at + 5 > end or _WORD.unpack_from(payload, at)[0] != _ZSTD_MAGIC:
        return None
    descriptor = payload[at + 4]
    single = descriptor >> 5 & 1
    at += 5 + (1 - single) + _DICTIONARY_BYTES[descriptor & 3]
    width = (single, 2, 4, 8)[descriptor >> 6]
    size = None
    if width:
        size = int.from_bytes(payload[at : at + width], "little") + (256 if width == 2 else 0)
        at += width
    bound = 0
    for _ in range(blocks):
        if at + 3 > end:
            return None
        word = payload[at] | payload[at + 1] << 8 | payload[at + 2] << 16
        kind, length = word >> 1 & 3, word >> 3
        if kind > _COMPRESSED or length > _ZSTD_BLOCK_BYTES:
            return None
        bound += _ZSTD_BLOCK_BYTES if kind == _COMPRESSED else length
        at += 3 + (1 if kind == _REPEATED else length)
        if word & 1:
            at += 4 if descriptor & 4 else 0
            return None if at > end else _ZstdFrame(at, bound, size)
    return None


_NAMES: Final = {GZIP: "gzip", SNAPPY: "Snappy", LZ4: "LZ4", ZSTD: "Zstandard"}
_UNPACKERS: Final = {GZIP: _unpack_gzip, SNAPPY: _unpack_snappy, LZ4: _unpack_lz4, ZSTD: _unpack_zstd}
