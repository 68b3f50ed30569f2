"""Old names: one warning, at the line that uses the name, which says what to use instead and until when."""

import asyncio
import warnings
from collections.abc import Callable
from typing import Any

import pytest

import waypost
from waypost.deprecation import REMOVED_IN, deprecated, moved, rename_keys, renamed_keywords

HERE = __file__


class Thing:
    @renamed_keywords(prefix="topic_prefix", options="kafka_options")
    def __init__(self, name: str, *, topic_prefix: str = "waypost", kafka_options: Any = None) -> None:
        self.given = (name, topic_prefix, kafka_options)

    async def drain(self) -> str:
        return "drained"

    @deprecated("drain()")
    async def room(self) -> str:
        return await self.drain()

    @property
    @deprecated("given")
    def told(self) -> Any:
        return self.given


def only_warning(use: Callable[[], Any]) -> tuple[Any, str]:
    """What ``use`` returned and its one warning, which must be shown at a line of this file."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = use()
    (warning,) = caught
    assert warning.category is DeprecationWarning
    assert warning.filename == HERE
    return found, str(warning.message)


def test_an_old_keyword_is_taken_for_the_new_one() -> None:
    thing, said = only_warning(lambda: Thing("a", prefix="mine"))  # type: ignore[call-arg]
    assert thing.given == ("a", "mine", None)
    assert said == (
        f"'prefix' of Thing is deprecated, and Waypost {REMOVED_IN} will not have it. Use 'topic_prefix'."
    )


def test_new_keywords_give_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Thing("a", topic_prefix="mine", kafka_options={}).given == ("a", "mine", {})


def test_both_names_of_a_keyword_are_an_error() -> None:
    with pytest.raises(TypeError, match=r"Thing got 'topic_prefix' twice: 'prefix' is its old name"):
        Thing("a", prefix="mine", topic_prefix="mine")  # type: ignore[call-arg]


def test_keys_of_a_mapping_are_renamed_in_place() -> None:
    given = {"options": {"client_id": "x"}, "source": "/s"}
    _, said = only_warning(lambda: rename_keys("publisher_options", given, {"options": "kafka_options"}, 0))
    assert given == {"kafka_options": {"client_id": "x"}, "source": "/s"}
    assert said.startswith("'options' of publisher_options is deprecated")


def test_an_old_coroutine_function_warns_at_the_call() -> None:
    coroutine, said = only_warning(lambda: Thing("a").room())
    assert asyncio.run(coroutine) == "drained"
    assert said == f"Thing.room is deprecated, and Waypost {REMOVED_IN} will not have it. Use drain()."


def test_an_old_property_warns_where_it_is_read() -> None:
    thing = Thing("a")
    found, said = only_warning(lambda: thing.told)
    assert found == thing.given
    assert said.startswith("Thing.told is deprecated")


def test_a_moved_name_is_found_where_it_was() -> None:
    find = moved("waypost.old", "Topics")
    found, said = only_warning(lambda: find("Topics"))
    assert found is waypost.Topics
    assert said.startswith("waypost.old.Topics is deprecated")
    with pytest.raises(AttributeError, match=r"'waypost.old' has no attribute 'Topic'"):
        find("Topic")


def test_old_names_are_removed_in_time() -> None:
    # docs/versioning.md: a name that is deprecated in 0.2 is there in every 0.2 version.
    version = tuple(map(int, waypost.__version__.split(".")[:2]))
    assert version < tuple(map(int, REMOVED_IN.split("."))), (
        "remove waypost.deprecation and what it is used for"
    )
