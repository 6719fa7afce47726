"""Members that an administrator takes out of a group: dead ones for good, the others join anew."""

import members
import pytest
from children import killed
from members import Worker, settle

from pylog import Admin, membership
from pylog.broker import Broker
from pylog.errors import GroupIdNotFoundError, UnknownMemberIdError
from pylog.group import describe
from pylog.subscription_state import make_subscription

broker = members.six


def test_a_static_member_that_is_removed_is_waited_for_no_more(broker):
    worker = Worker(broker)
    killed(lambda: Worker(Broker(broker.path), instance_id="one"))
    worker.sync()
    assert len(worker.owned) == 3

    Admin(broker).remove_group_members("g", ["one"])
    worker.sync()

    assert worker.owned == list(range(6))
    assert [m["group_instance_id"] for m in describe(broker.group("g"))["members"]] == [None]


def test_a_member_that_lives_and_is_removed_is_told_and_joins_anew(broker):
    first, second = Worker(broker), Worker(broker)
    settle(first, second)
    number = str(second.member.number)

    Admin(broker).remove_group_members("g", [number])
    with pytest.raises(UnknownMemberIdError):
        second.commit(second.owned[0], 0)
    settle(first, second)

    assert second.told[1][0] == "lost"
    assert str(second.member.number) != number
    assert len(first.owned) == len(second.owned) == 3


@pytest.mark.parametrize(("group", "members", "error", "words"), [
    ("g", ["one", "tow"], UnknownMemberIdError, "'tow'; did you mean 'two'.*nobody was removed"),
    ("g", ["99"], UnknownMemberIdError, "no member '99'"),
    ("g", [None], UnknownMemberIdError, "no member None"),
    ("g", "one", TypeError, "members must be a list of names"),
    ("h", ["one"], GroupIdNotFoundError, "no group 'h'"),
])
def test_members_that_are_not_there_are_not_removed(broker, group, members, error, words):
    workers = [Worker(broker, instance_id=name) for name in ("one", "two")]
    settle(*workers)
    generation = broker.group("g").roster()[0]

    with pytest.raises(error, match=words):
        Admin(broker).remove_group_members(group, members)
    Admin(broker).remove_group_members("g", [])

    assert broker.group("g").roster()[0] == generation


def test_who_is_interrupted_behind_its_joining_is_no_member(broker, monkeypatch):
    """Its process lives on, and would have partitions that nobody reads."""
    member = membership.Membership(broker, "g")
    change = membership.change_roster

    def change_and_interrupt(*given):
        monkeypatch.setattr(membership, "change_roster", change)
        change(*given)
        raise KeyboardInterrupt

    monkeypatch.setattr(membership, "change_roster", change_and_interrupt)
    with pytest.raises(KeyboardInterrupt):
        member.subscribe(make_subscription(["orders"], None, None))

    assert describe(broker.group("g"))["members"] == []
