"""What is requested again, reported, and moved when a session continues."""

import asyncio

import pytest

from duologue.items import AgentItem, UserItem
from duologue.realtime._session.connections import ActiveConnection
from duologue.realtime._session.reply_scheduler import Reply, Request
from duologue.realtime._session.resume import (
    CONTINUE_PROMPT,
    Outage,
    connected_event,
    reinsert_turn,
    retry_command,
)
from duologue.realtime.capabilities import Capabilities
from duologue.realtime.codec import SessionSetup
from duologue.realtime.commands import AddItem, DeleteItem, RequestReply, Say
from duologue.realtime.outputs import SessionStarted


class Silent:
    async def run(self, receive):
        await asyncio.Event().wait()

    def transmit(self, command): ...


def connection(*, started=None, history=()):
    return ActiveConnection(Silent(), SessionSetup("", (), history), started=started)


def reply(command=None):
    return Reply("r", 0, None if command is None else Request(command, 0))


@pytest.mark.parametrize(
    ("command", "spoken", "expected"),
    [
        (None, None, None),
        (None, "Well,", CONTINUE_PROMPT),
        (RequestReply("q"), None, None),
        (RequestReply("q"), "Well,", CONTINUE_PROMPT),
        (RequestReply("q", "sing"), None, "sing"),
        (RequestReply("q", "sing"), "La", f"sing\n\n{CONTINUE_PROMPT}"),
        (RequestReply("q", CONTINUE_PROMPT), "La", CONTINUE_PROMPT),
    ],
)
def test_a_reply_that_broke_off_is_requested_with_instructions_to_continue(
    command, spoken, expected
):
    again = retry_command(reply(command), spoken)
    assert again == RequestReply(again.request_id, expected)
    assert again.request_id != "q"


@pytest.mark.parametrize(
    ("spoken", "rest"),
    [(None, "One. Two."), ("One.", "Two."), ("Other.", "One. Two."), ("One. Two.", None)],
)
def test_scripted_text_is_requested_from_where_it_stopped(spoken, rest):
    again = retry_command(reply(Say("q", "One. Two.", interruptible=False)), spoken)
    assert again == (rest and Say(again.request_id, rest, interruptible=False))


@pytest.mark.parametrize(
    ("started", "history", "accepts_history", "outcome"),
    [
        (SessionStarted(restored=True), (UserItem("u", "x"),), False, "restored"),
        (SessionStarted(), (UserItem("u", "x"),), True, "replayed"),
        (SessionStarted(), (), False, "replayed"),
        (None, (UserItem("u", "x"),), False, "fresh"),
    ],
)
def test_the_outcome_and_the_losses_of_an_outage(started, history, accepts_history, outcome):
    outage = Outage()
    outage.begin(1600, 10.0)
    can = Capabilities("p", "m", input_rate=16000, accepts_history=accepts_history)
    event = outage.end(connection(started=started, history=history), can, 4800, 10.25)
    assert (event.outcome, event.lost_ms, event.gap_ms) == (outcome, 200, 250)


def test_the_first_connection_is_reported_with_its_config_and_capabilities():
    can = Capabilities("p", "m", video=True)
    event = connected_event(connection(started=SessionStarted({"voice": "x"})), "id", can)
    assert (event.session_id, event.session_config) == ("id", {"voice": "x"})
    assert event.capabilities["video"] is True
    assert connected_event(connection(), "id", can).session_config == {}


def test_a_turn_moves_only_before_items_that_the_connection_began_with():
    question, answer = UserItem("u", "Who?"), AgentItem("a", "Me.")
    history = (question, answer)
    assert reinsert_turn("u", "v", history, {"a"}) == [
        DeleteItem("v"), AddItem(question, before=("a",)),
    ]  # fmt: skip
    assert reinsert_turn("u", "v", history, {"u"}) == []
    assert reinsert_turn("missing", "v", history, {"a"}) == []
