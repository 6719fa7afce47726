"""Where a read starts and stops: offsets, words, and times of two records in one millisecond."""

import datetime as dt

import pytest

import pylog

NOON = dt.datetime(2023, 11, 14, 12, tzinfo=dt.UTC)
NOON_MS = 1_699_963_200_000
MICROSECOND = dt.timedelta(microseconds=1)


@pytest.fixture
def log(log_path):
    """Ten records: two a millisecond from NOON on."""
    with pylog.Log(log_path) as log:
        log.append_many([b"x"] * 10, timestamps=[NOON_MS + n // 2 for n in range(10)])
        yield log


def after(milliseconds):
    return NOON + dt.timedelta(milliseconds=milliseconds)


@pytest.mark.parametrize(("stop", "offsets"), [
    (None, range(3, 10)), (5, range(3, 5)), (-2, range(3, 8)), ("latest", range(3, 10)),
    ("earliest", []), (0, []), (100, range(3, 10)), (after(3), range(3, 6)),
    (after(-1000), []), (after(1000), range(3, 10)),
], ids=str)
def test_stop_is_what_start_is(log, stop, offsets):
    assert [record.offset for record in log.read(3, stop)] == list(offsets)


@pytest.mark.parametrize("stop", ["end", 1.5, True, b"latest", dt.datetime(2023, 1, 1), [5]],
                         ids=repr)
@pytest.mark.parametrize("follow", [False, True])
def test_stop_that_is_none_is_called_stop(log, stop, follow):
    with pytest.raises((pylog.ConfigurationError, TypeError), match=r"^stop") as caught:
        log.read(0, stop, follow=follow)

    assert getattr(caught.value, "option", "stop") == "stop"


@pytest.mark.parametrize(("start", "error"), [
    (1.5, TypeError), (True, TypeError), (None, TypeError), (b"earliest", TypeError),
    ([1], TypeError), (dt.date(2023, 1, 1), TypeError), (dt.timedelta(1), TypeError),
    ("first", pylog.ConfigurationError), ("", pylog.ConfigurationError),
    (dt.datetime(2023, 1, 1), pylog.ConfigurationError),
], ids=str)
def test_start_that_is_none_is_called_start(log, start, error):
    for call in (log.read, log.cursor, log.resolve):
        with pytest.raises(error, match=r"^start"):
            call(start)


@pytest.mark.parametrize("extra", [dt.timedelta(0), MICROSECOND, 999 * MICROSECOND])
@pytest.mark.parametrize("milliseconds", [0, 1, 2, 3, 4])
def test_datetime_is_rounded_down_to_its_millisecond(log, milliseconds, extra):
    moment = after(milliseconds) + extra

    assert log.offset_for_time(moment) == 2 * milliseconds
    assert log.resolve(moment) == 2 * milliseconds
    assert next(log.read(moment)).offset == 2 * milliseconds


def test_datetime_becomes_milliseconds_without_a_float_between(log_path):
    moments = [dt.datetime(2023, 1, 1, microsecond=1000 * n, tzinfo=dt.UTC) for n in range(1000)]
    first = 1_672_531_200_000

    with pylog.Log(log_path) as log:
        log.append_many([b""] * 1000, timestamps=range(first, first + 1000))

        assert [log.offset_for_time(moment) for moment in moments] == list(range(1000))


def test_datetime_may_lie_in_any_zone_or_time(log):
    zone = dt.timezone(dt.timedelta(hours=-7))

    assert log.offset_for_time(after(3).astimezone(zone)) == 6
    assert log.offset_for_time(dt.datetime(1815, 12, 10, tzinfo=dt.UTC)) == 0
    assert log.offset_for_time(dt.datetime.min.replace(tzinfo=dt.UTC)) == 0
    assert log.offset_for_time(dt.datetime.max.replace(tzinfo=dt.UTC)) is None
    assert log.resolve(dt.datetime.max.replace(tzinfo=dt.UTC)) == 10


def test_datetime_without_a_zone_is_refused(log):
    with pytest.raises(pylog.ConfigurationError, match=r"^timestamp.*time zone") as caught:
        log.offset_for_time(dt.datetime(2023, 1, 1))

    assert caught.value.option == "timestamp"


@pytest.mark.parametrize("timestamp", ["latest", dt.date(2023, 1, 1), 1.9, None, True], ids=repr)
def test_time_that_is_none_is_refused(log, timestamp):
    with pytest.raises(TypeError, match="timestamp"):
        log.offset_for_time(timestamp)


@pytest.mark.parametrize("options", [{}, {"if_end": 10}, {"atomic": True}], ids=repr)
def test_appending_nothing_returns_the_end(log, options):
    assert log.append_many([], **options) == 10


@pytest.mark.parametrize("if_end", [0, 9, 11, 2**70])
def test_appending_nothing_at_a_wrong_end_is_told(log, if_end):
    with pytest.raises(pylog.WrongEndOffsetError) as caught:
        log.append_many([], if_end=if_end)

    assert (caught.value.offset, caught.value.end_offset) == (if_end, 10)


@pytest.mark.parametrize("timestamp_type", ["create", "append"])
@pytest.mark.parametrize("durability", ["os", "interval", "fsync"])
def test_stats_tell_options_as_the_constructor_takes_them(log_path, durability, timestamp_type):
    given = {"durability": durability, "timestamp_type": timestamp_type, "segment_bytes": 8192}
    with pylog.Log(log_path, **given) as log:
        options = log.stats()["options"]
        assert options | given == options
    with pylog.Log(log_path, **options) as log:
        assert log.stats()["options"] == options
