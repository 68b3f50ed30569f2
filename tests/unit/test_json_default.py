"""The ready-made function for values that JSON lacks: what becomes of each, and that it guesses nothing."""

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any
from uuid import UUID

import numpy
import orjson
import pydantic.dataclasses
import pytest

from waypost import InvalidCommandError, json_default
from waypost.model.limits import dump_object


class Model(pydantic.BaseModel):
    at: datetime
    price: Decimal


@dataclass
class Plain:
    when: date
    inner: "Plain | None" = None
    tags: set[str] = field(default_factory=set)


@pydantic.dataclasses.dataclass
class Checked:
    price: Decimal


NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (NOON, "2026-11-30T12:00:00+00:00"),
        (NOON.replace(tzinfo=None), "2026-11-30T12:00:00"),
        (NOON.date(), "2026-11-30"),
        (time(12, 30), "12:30:00"),
        (Decimal("1.50"), "1.50"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        ({7}, [7]),
        (frozenset({"a"}), ["a"]),
        (Model(at=NOON, price=Decimal("1.50")), {"at": "2026-11-30T12:00:00Z", "price": "1.50"}),
        (
            Plain(NOON.date(), Plain(NOON.date()), {"a"}),
            {
                "when": "2026-11-30",
                "inner": {"when": "2026-11-30", "inner": None, "tags": []},
                "tags": ["a"],
            },
        ),
        (Checked(Decimal("2")), {"price": "2"}),
        (numpy.arange(4).reshape(2, 2), [[0, 1], [2, 3]]),
        (numpy.int64(3), 3),
        (numpy.float32(0.5), 0.5),
        (numpy.float64(0.1), 0.1),
        (numpy.bool_(True), True),
        (numpy.datetime64("2026-11-30"), "2026-11-30"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_becomes_of_a_value(value: Any, plain: Any) -> None:
    assert orjson.loads(dump_object({"a": [value]}, "data", json_default)) == {"a": [plain]}


@pytest.mark.parametrize(
    "value", [b"bytes", timedelta(1), Fraction(1, 3), object(), Model, Plain, 1j, range(3), numpy.int64]
)
def test_what_it_does_not_know_is_an_error(value: Any) -> None:
    with pytest.raises(
        InvalidCommandError, match=r"data\.a: a \w+ is not JSON, and default= raised TypeError: json_d"
    ):
        dump_object({"a": value}, "data", json_default)


def test_not_a_number_in_an_array_is_an_error_and_no_null() -> None:
    with pytest.raises(InvalidCommandError, match=r"data\.a\[1\]: nan is not a JSON number"):
        dump_object({"a": numpy.array([1, numpy.nan])}, "data", json_default)
