"""Addresses of brokers, as users write them."""

from typing import Any

import pytest

from waypost import Publisher, Subscriber, SyncPublisher
from waypost.kafka.addresses import broker_addresses


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("localhost:9092", [("localhost", 9092)]),
        ("localhost", [("localhost", 9092)]),
        ("a.example:1, b.example:65535 ", [("a.example", 1), ("b.example", 65535)]),
        (["a:1", "b"], [("a", 1), ("b", 9092)]),
        ("[::1]:19092", [("::1", 19092)]),
        ("[fe80::1]", [("fe80::1", 9092)]),
        ("::1", [("::1", 9092)]),
        ("127.0.0.1:9093", [("127.0.0.1", 9093)]),
    ],
)
def test_an_address_is_a_host_and_perhaps_a_port(given: Any, meant: list[tuple[str, int]]) -> None:
    assert broker_addresses(given) == meant


WRONG = [
    "",
    "localhost:abc",
    "localhost:0",
    "a:70000",
    "http://localhost:9092",
    "a b:1",
    "a:1,,b:2",
    ":9092",
    [],
]


@pytest.mark.parametrize("given", [*WRONG, 9092, ["a:1", 2], b"a:1"])
def test_an_invalid_address_is_refused_when_the_client_is_made(given: Any) -> None:
    for make in (Publisher, SyncPublisher, Subscriber):
        with pytest.raises(ValueError, match="bootstrap_servers"):
            make(given)
