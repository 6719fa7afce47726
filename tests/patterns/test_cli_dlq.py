"""The command line: `pylog dlq`."""

import json
import re

import pytest
from shell import done, fails, run

import pylog
from pylog.exits import Exit
from pylog.patterns import DeadLetters
from pylog.patterns.letter import bury

LETTER = "dlq.billing.orders:0:"


@pytest.fixture
def data(data_path):
    """Four letters of the group "billing", of two kinds, one with what no terminal should show."""
    with pylog.Broker(data_path) as broker:
        broker.create_topic("dlq.billing.orders")
        for number in range(4):
            broker.append("orders", b'{"n":%d}' % number, key=b"k\xff", headers=[("h", b"\x1b[2J")])
        for number, record in enumerate(broker.read("orders")):
            bury(broker, "dlq.billing.orders", record, (ValueError, KeyError)[number % 2]("no"),
                 group="billing", handler="charge", attempts=3)
    return data_path


def pending(data):
    with pylog.Broker(data) as broker:
        return [letter.id.rpartition(":")[2] for letter in DeadLetters(broker).list()]


def test_ls_shows_the_topics_and_how_many_each_has(data):
    done("dlq", "discard", LETTER + "3")
    [head, row] = done("dlq", "ls").stdout.splitlines()

    assert head.split() == ["TOPIC", "PENDING", "REPLAYED", "DISCARDED", "OLDEST"]
    assert row.split()[:4] == ["dlq.billing.orders", "3", "0", "1"]
    assert json.loads(done("dlq", "ls", "--json").stdout)["pending"] == 3


@pytest.mark.parametrize(("options", "numbers"), [
    (["billing"], "0123"), (["dlq.billing.orders"], "0123"), (["--error", "ValueError"], "02"),
    (["billing", "--error", "KeyError", "-n", "1"], "1"), (["billing", "--handler", "mail"], ""),
    (["--topic", "orders"], "0123"), (["--topic", "refunds"], ""), (["--since", "@-1h"], "0123"),
    (["--since", "-1h"], "0123"),
    (["--since", "2100-01-01"], ""), (["--all"], "0123")])
def test_ls_shows_the_letters_that_are_meant(data, options, numbers):
    found = [json.loads(line)["id"] for line in
             done("dlq", "ls", *options, "--json").stdout.splitlines()]
    assert found == [LETTER + one for one in numbers]
    assert re.findall(LETTER + r"(\d)", done("dlq", "ls", *options).stdout) == list(numbers)


def test_show_has_all_that_is_known_of_a_letter(data):
    text = done("dlq", "show", LETTER + "1").stdout

    for words in ("from +orders-0:1", "group +billing", "handler +charge", "attempts +3",
                  "error +KeyError", "state +pending", r"key +k\\+xff", r"header h +\\x1b\[2J"):
        assert re.search(words, text), words
    assert text.endswith('\n{"n":1}\n')
    found = json.loads(done("dlq", "show", LETTER + "1", "--json").stdout)
    assert (found["offset"], found["value"], found["key_b64"]) == (1, '{"n":1}', "a/8=")


def test_replay_sends_and_marks(data):
    result = done("dlq", "replay", LETTER + "0", LETTER + "2")

    assert result.stderr == "sent 2 of 2 again\n"
    assert pending(data) == ["1", "3"]
    assert done("dlq", "replay", LETTER + "0").stderr == "sent 0 of 1 again\n"
    assert "replayed" in done("dlq", "ls", "billing", "--all").stdout
    with pylog.Broker(data) as broker:
        assert broker.log("orders").end_offset == 6


def test_replay_of_many_chosen_edited_and_sent_elsewhere(data):
    done("topic", "create", "fixed")
    done("dlq", "replay", "billing", "--error", "KeyError", "-n", "1", "--value", "fixed",
         "--to", "fixed", "--rate", "1000", "--yes")

    assert pending(data) == ["0", "2", "3"]
    with pylog.Broker(data) as broker:
        assert [record.value for record in broker.read("fixed")] == [b"fixed"]


def test_discard_marks_and_keeps(data):
    assert done("dlq", "discard", "billing", "--yes").stderr == "discarded 4 of 4\n"
    assert pending(data) == []
    assert "no letter is pending" in done("dlq", "ls", "billing").stderr
    assert re.search(r"state +discarded", done("dlq", "show", LETTER + "0").stdout)


@pytest.mark.parametrize(("command", "code", "words"), [
    (("ls", "nobody"), Exit.FAILED, "no topic 'nobody', and no group of this name"),
    (("ls", "billing", "--since", "5"), Exit.USAGE, "'5' is no time"),
    (("ls", "billing", "--since", "noon"), Exit.USAGE, "'noon' is no time; use -15m"),
    (("ls", "billing", "-n", "-1"), Exit.USAGE, "-1"),
    (("show", "billing"), Exit.FAILED, "is no id of a letter"),
    (("show", LETTER + "99"), Exit.FAILED, "no letter 'dlq.billing.orders:0:99'"),
    (("show", "gone:0:1"), Exit.FAILED, "no topic 'gone'"),
    (("replay", "billing"), Exit.USAGE, r"nobody to ask: add --yes for 4 letter\(s\)"),
    (("discard", "billing"), Exit.USAGE, "nobody to ask"),
    (("replay", "billing", "--value", "x", "-y"), Exit.USAGE, "for one letter, and there are 4"),
    (("replay", LETTER + "0", "--rate", "0"), Exit.USAGE, "rate"),
    (("replay", LETTER + "0", "--to", "gone"), Exit.FAILED, "no topic 'gone'; create it"),
    (("replay",), Exit.USAGE, "Missing argument"),
    (("ls", "-d", "nowhere"), Exit.FAILED, "no broker at nowhere"),
])
def test_what_cannot_be_done_is_told(data, command, code, words):
    fails(code, words, "dlq", *command)

    assert pending(data) == ["0", "1", "2", "3"]


def test_ls_of_none_says_how_there_come_to_be_some(data_path):
    done("topic", "create", "orders")

    assert "a subscription of a group makes its own" in done("dlq", "ls").stderr


def test_help_names_the_verbs():
    text = run("dlq", "--help").output

    assert all(verb in text for verb in ("ls", "show", "replay", "discard", "Examples"))
