"""When a consumer counts as stuck: asked for long, behind at two looks in the same place."""

from waypost.subscriber.watchdog import FetchProgress


def reading(**positions: int) -> FetchProgress[str]:
    progress: FetchProgress[str] = FetchProgress(10)
    progress.begin(positions)
    return progress


def test_only_time_spent_asking_makes_a_partition_hungry() -> None:
    progress = reading(a=5, b=7)
    progress.asked(6, {"b"})
    assert progress.hungry() == []
    assert progress.hungry(asking_for=4) == ["a"]
    progress.asked(6, {"b"})
    assert progress.hungry() == ["a"]


def test_what_stands_behind_at_the_second_look_is_stuck() -> None:
    progress = reading(a=5, b=7)
    assert progress.stuck({"a": 8, "b": 7}) == {}
    assert progress.stuck({"a": 9, "b": 7}) == {"a": 4}


def test_a_record_that_came_between_two_looks_clears_it() -> None:
    progress = reading(a=5)
    progress.asked(11, ())
    assert progress.stuck({"a": 8}) == {}
    progress.came("a", 6)
    assert progress.hungry() == []
    assert progress.stuck({"a": 8}) == {}
    assert progress.stuck({"a": 8}) == {"a": 2}


def test_a_partition_at_the_end_of_its_log_is_not_hungry() -> None:
    progress = reading(a=5)
    progress.asked(11, ())
    assert progress.hungry() == ["a"]
    assert progress.stuck({"a": 5}) == {}
    assert progress.hungry() == []


def test_a_partition_that_went_away_is_forgotten() -> None:
    progress = reading(a=5, b=5)
    progress.stuck({"a": 8})
    progress.begin({"b": 5})
    assert progress.stuck({"a": 8}) == {}
    assert progress.positions == {"b": 5}


def test_restarts_that_do_not_help_become_rare() -> None:
    progress = reading(a=5)
    patiences = []
    for _ in range(9):
        progress.restarted(["a"])
        progress.begin({"a": 5})
        patiences.append(progress.patience)
    assert patiences == [10, 20, 40, 80, 160, 320, 600, 600, 600]
    progress.came("a", 6)
    assert progress.patience == 10
