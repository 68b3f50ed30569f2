"""Ed25519 as RFC 8032 writes it down, to check signatures without the worker's library. Slow, and only for tests."""

import hashlib
from typing import Any

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
ROOT_OF_MINUS_ONE = pow(2, (P - 1) // 4, P)
Point = tuple[int, int, int]  # x, y and a common divisor of both
NEUTRAL: Point = (0, 1, 1)


def add(one: Point, other: Point) -> Point:
    (x1, y1, z1), (x2, y2, z2) = one, other
    a, b = z1 * z2 % P, D * x1 * x2 * y1 * y2 % P
    f, g = (a * a - b) % P, (a * a + b) % P
    return (
        a * f * (x1 * y2 + x2 * y1) % P,
        a * g * (y1 * y2 + x1 * x2) % P,
        f * g % P,
    )


def times(factor: int, point: Point) -> Point:
    found = NEUTRAL
    while factor:
        if factor & 1:
            found = add(found, point)
        point, factor = add(point, point), factor >> 1
    return found


def decompressed(raw: bytes) -> Point | None:
    y, sign = int.from_bytes(raw, "little") & (2**255 - 1), raw[31] >> 7
    if y >= P:
        return None
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * ROOT_OF_MINUS_ONE % P
    if (x * x - square) % P or (x == 0 and sign):
        return None
    return (P - x if x & 1 != sign else x), y, 1


def compressed(point: Point) -> bytes:
    x, y, z = point
    x, y = x * pow(z, -1, P) % P, y * pow(z, -1, P) % P
    return (y | (x & 1) << 255).to_bytes(32, "little")


_BASE: Any = decompressed((4 * pow(5, -1, P) % P).to_bytes(32, "little"))


def is_valid(key: bytes, message: bytes, signature: bytes) -> bool:
    if len(key) != 32 or len(signature) != 64:
        return False
    public, s = decompressed(key), int.from_bytes(signature[32:], "little")
    if public is None or s >= L:
        return False
    hashed = int.from_bytes(hashlib.sha512(signature[:32] + key + message).digest(), "little") % L
    x, y, z = public
    difference = add(times(s, _BASE), times(hashed, (P - x, y, z)))
    return compressed(difference) == signature[:32]
