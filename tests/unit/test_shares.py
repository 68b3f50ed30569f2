"""Which sessions a sample holds, and how shares of them follow each other."""

from waypost_worker.recovery.shares import Share, share_of, spread_of


def test_a_sample_has_about_its_share_and_is_part_of_a_larger_one() -> None:
    keys = [b"session-%d" % number for number in range(5000)]
    small, large = ({key for key in keys if share_of(part).holds(spread_of(key))} for part in (0.05, 0.5))
    assert 150 < len(small) < 350
    assert 2300 < len(large) < 2700
    assert small < large
    assert share_of(1).whole
    assert all(share_of(1).holds(spread_of(key)) for key in keys)
    assert 150 < sum(share_of(0.05).holds(spread_of(None, offset)) for offset in range(5000)) < 350


def test_shares_that_follow_each_other_leave_nothing_out() -> None:
    shares = [Share().first_half().first_half().first_half()]
    while shares[-1].high < Share().high:
        shares.append(shares[-1].following(Share().high))
    assert len(shares) == 8
    keys = [b"session-%d" % number for number in range(1000)]
    assert all(sum(share.holds(spread_of(key)) for share in shares) == 1 for key in keys)
    assert Share(5, 6).first_half() == Share(5, 6)
    assert Share(0, 3).following(4) == Share(3, 4)
