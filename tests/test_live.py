"""The command line: `pylog top` and `pylog graph`."""

import io
import json
import os
import pty
import re
import signal
import struct
import subprocess
import termios
from fcntl import ioctl

import pytest
from orders import ORDERS, fill, orders_broker
from shell import COMMAND, done, fails, hear_interrupts, lines, start

import pylog
from pylog.exits import Exit
from pylog.live import plot, plot_view, size_text, top_view
from pylog.observation import GroupView, MemberView, Observation, TopicView, observe

QUICK = ["-i", "0.05"]


@pytest.fixture
def data(data_path, monkeypatch):
    """Ten orders a partition; "billing" has read 18 of them; a topic that nobody reads."""
    monkeypatch.setenv("TERM", "xterm")
    with orders_broker(data_path) as broker:
        broker.create_topic("refunds", 1)
        fill(broker)
        with pylog.Consumer(broker, group_id="billing") as consumer:
            consumer.commit(dict(zip(ORDERS, (3, 5, 10), strict=True)))
    return data_path


def test_top_shows_topics_and_groups(data):
    text = done("top", *QUICK, "-n", "1").stdout

    assert re.search(r"^orders +3 +0 +30 ", text, re.MULTILINE)
    assert re.search(r"^refunds +1 +0 +0 ", text, re.MULTILINE)
    assert re.search(r"^billing +0 +12 +0 = +Empty", text, re.MULTILINE)


def test_top_as_json_is_a_line_a_look(data):
    looks = list(map(json.loads, lines("top", *QUICK, "-n", "3", "--json")))

    assert len(looks) == 3
    assert {one["name"]: one["end"] for one in looks[0]["topics"]} == {"orders": 30, "refunds": 0}
    assert looks[0]["groups"][0]["lag"] == 12
    assert looks[0]["members"] == []


def test_top_shows_no_dead_members_of_a_group_that_nobody_is_in(data):
    def members():
        return [one["pid"] for one in json.loads(lines(
            "top", *QUICK, "-n", "1", "--json")[0])["members"]]

    reader = start("consume", "orders", "-g", "billing")
    assert reader.stdout.readline()
    assert members() == [reader.pid]
    reader.kill()
    reader.communicate()

    assert members() == []
    assert re.search(r"^billing +0 .* Empty", done("top", *QUICK, "-n", "1").stdout, re.MULTILINE)


def test_rates_and_changes_are_those_since_the_look_before():
    before = Observation(10.0, [TopicView("t", 1, 100, 0)], [GroupView("g", "Stable", 1, 50)])
    now = Observation(12.0, [TopicView("t", 1, 300, 0), TopicView("new", 1, 7, 0)],
                      [GroupView("g", "Stable", 1, 40), GroupView("new", "Stable", 1, 5)])

    now.compare(before)

    assert [one.rate for one in now.topics] == [100, 3.5]
    assert [one.change for one in now.groups] == [-10, 0]


def test_what_moves_and_what_lags_comes_first():
    now = Observation(1.0, [TopicView("a", 1, 9, 0, 0), TopicView("b", 1, 1, 0, 5)],
                      [GroupView("a", "Stable", 1, 0), GroupView("b", "Stable", 1, 7)])

    now.sort()

    assert [one.name for one in now.topics + now.groups] == ["b", "a", "b", "a"]


@pytest.mark.slow
def test_members_are_seen_with_their_process(data):
    process = start("consume", "orders", "-g", "billing")
    try:
        assert process.stdout.readline()
        with pylog.Broker(data) as broker:
            member, = observe(broker).members
    finally:
        process.kill()
        process.communicate()

    assert (member.pid, member.partitions, member.is_alive) == (process.pid, 3, True)


def test_a_topic_that_is_deleted_is_left_out(data):
    with pylog.Broker(data) as broker:
        before = observe(broker)
        with pylog.Broker(data) as other:
            other.delete_topic("orders")
        now = observe(broker, before)

    assert [one.name for one in now.topics] == ["refunds"]
    assert [one.lag for one in now.groups] == [0]


@pytest.mark.parametrize("height", [8, 20, 24, 60])
def test_top_fits_its_screen(data, height):
    from rich.console import Console

    now = Observation(1.0, [TopicView(f"topic-{n}", 1, n, n, n) for n in range(50)],
                      [GroupView(f"group-{n}", "Stable", 1, n, 0) for n in range(50)])
    console = Console(width=60, height=height, record=True, file=io.StringIO())

    console.print(top_view(data, now, 60, height))

    lines = console.export_text().splitlines()
    assert len(lines) <= max(height, 18)
    assert max(map(len, lines)) <= 60
    assert "and " in "\n".join(lines)


@pytest.mark.parametrize("width", [80, 40, 30, 24])
def test_names_are_legible_on_a_narrow_screen(data, width):
    from rich.console import Console

    now = Observation(1.0, [TopicView("some-topic", 3, 55_000, 6_000_000, 10_000)],
                      [GroupView("some-group", "Stable", 2, 33_708, 4629)],
                      [MemberView(1, "some-group", "pylog", 1, True)])
    console = Console(width=width, record=True, file=io.StringIO())

    console.print(top_view(data, now, width, 24))
    console.print(plot_view("lag", [1.0] * 99, 1.0, width, 8))

    text = console.export_text()
    assert text.count("some-topic") == 1
    assert text.count("some-group") == 2
    assert text.count("\u2026") == text.splitlines()[0].count("\u2026")    # the path's alone
    assert max(map(len, text.splitlines())) == width


def test_a_name_is_shown_as_it_is(data):
    from rich.console import Console

    now = Observation(1.0, members=[MemberView(1, "[red]g", "[/x] :smile: \x1b[2J", 1, True)])
    console = Console(width=80, record=True, file=io.StringIO())

    console.print(top_view(data, now, 80, 24))

    text = console.export_text()
    assert "[red]g " in text
    assert r"[/x] :smile: \x1b[2J" in text


def test_graph_plots_a_rate_or_a_lag(data):
    text = done("graph", "--group", "billing", *QUICK, "-n", "2").stdout
    assert "lag of billing" in text
    assert "last 12  min 12  max 12  p99 12  of 2 looks" in text
    assert "records/s into orders" in done("graph", "orders", *QUICK, "-n", "1").stdout
    found = json.loads(done("graph", "orders", "-g", "billing", *QUICK, "-n", "1", "--json").stdout)
    assert found == {"what": "lag of billing in orders", "value": 12}


def test_plot_draws_the_largest_to_the_top():
    assert plot([0, 8, 16, 12], 2) == ["  █▄", " ███"]
    assert plot([0, 0], 2) == ["  ", "  "]
    assert plot([], 1) == [""]


@pytest.mark.parametrize(("size", "text"), [
    (0, "0 B"), (999, "999 B"), (1000, "1 KB"), (2_113_536, "2 MB"), (10 ** 16, "10,000 TB"),
])
def test_sizes_are_short(size, text):
    assert size_text(size) == text


@pytest.mark.parametrize(("code", "words", "arguments"), [
    (Exit.USAGE, "TOPIC", ["graph"]), (Exit.USAGE, "range", ["graph", "orders", "-i", "0"]),
    (Exit.USAGE, "range", ["top", "-n", "0"]), (Exit.USAGE, "valid float", ["top", "-i", "x"]),
    (Exit.USAGE, "argument", ["top", "orders"]),
    (Exit.FAILED, "no topic 'ordrs'; did you mean 'orders'", ["graph", "ordrs"]),
    (Exit.FAILED, "no group 'biling'; did you mean 'billing'", ["graph", "-g", "biling"]),
    (Exit.FAILED, "no broker at", ["top", "-d", "nowhere"]),
], ids=str)
def test_what_cannot_be_watched_is_told(data, code, words, arguments):
    fails(code, words, *arguments)


def in_terminal(*arguments):
    """`pylog arguments` on a terminal of 20 lines of 60, and the other end of that."""
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 20, 60, 0, 0))
    process = subprocess.Popen([*COMMAND, *arguments], stdin=theirs, stdout=theirs,
                               stderr=subprocess.PIPE, preexec_fn=hear_interrupts)
    os.close(theirs)
    return process, ours


def rest_of(process, terminal):
    """What it writes until it ends."""
    seen = b""
    while True:
        try:
            seen += os.read(terminal, 4096)
        except OSError:    # the terminal has no other end any more
            break
    os.close(terminal)
    process.wait(timeout=30)
    assert process.stderr.read() == b""
    process.stderr.close()
    return seen


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["top"], ["graph", "orders"]], ids=str)
def test_a_terminal_is_drawn_over_and_given_back(data, arguments):
    process, terminal = in_terminal(*arguments, *QUICK)
    seen = b""
    while seen.count(b"orders") < 3:
        seen += os.read(terminal, 4096)
    process.send_signal(signal.SIGINT)
    seen += rest_of(process, terminal)
    assert process.returncode == Exit.INTERRUPTED
    assert seen.count(b"\x1b[?1049h") == seen.count(b"\x1b[?1049l") == 1    # the other screen


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["top"], ["graph", "orders"]], ids=str)
def test_the_last_of_so_many_looks_stays_on_the_terminal(data, arguments):
    seen = rest_of(*in_terminal(*arguments, *QUICK, "-n", "2"))

    assert b"orders" in seen.rpartition(b"\x1b[?1049l")[2]


@pytest.mark.parametrize("command", ["top", "graph"])
def test_help_shows_an_example(command):
    assert f"pylog {command}" in done(command, "--help").stdout.partition("Examples:")[2]
