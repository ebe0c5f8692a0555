"""Tickets of calls, and the events that a page has missed."""

import json

import pytest

from duologue.server._event_log import MAX_CHARS, MAX_EVENTS, EventLog
from duologue.server.tickets import MAX_FAILURES, Ticket, TicketKeeper, WrongTickets

CALL, SESSION = "3-0123456789ab", "0123456789abcdef" * 2


def test_a_ticket_survives_its_text_and_does_not_show_its_secret():
    ticket = TicketKeeper(CALL, SESSION).issue()
    assert Ticket.parse(ticket.text) == ticket
    assert (ticket.call_id, ticket.session_id) == (CALL, SESSION)
    assert ticket.secret not in repr(ticket)
    assert ticket.secret not in ticket.digest


@pytest.mark.parametrize(
    "text",
    ["", "x", f"{CALL}.{SESSION}.", f"{CALL}.{SESSION}.{'a' * 44}", f"{CALL}.{SESSION}.{'ä' * 43}"],
)
def test_a_text_that_is_no_ticket_is_none(text):
    assert Ticket.parse(text) is None


def test_a_ticket_works_once_when_the_next_one_is_confirmed():
    keeper = TicketKeeper(CALL, SESSION)
    first = keeper.issue()
    assert keeper.claim(first)
    second = keeper.issue()
    keeper.confirm()
    assert not keeper.claim(first)
    assert keeper.claim(second)


def test_a_ticket_works_again_while_the_page_may_not_have_the_next_one():
    keeper = TicketKeeper(CALL, SESSION)
    first = keeper.issue()
    for _ in range(3):
        assert keeper.claim(first)
        lost = keeper.issue()
    assert keeper.claim(lost)
    keeper.issue()
    assert not keeper.claim(first)


def test_a_ticket_of_another_call_or_session_is_wrong():
    keeper = TicketKeeper(CALL, SESSION)
    ticket = keeper.issue()
    assert not keeper.claim(TicketKeeper(CALL, SESSION).issue())
    assert not keeper.claim(Ticket(CALL, SESSION[::-1], ticket.secret))


def test_a_keeper_that_has_issued_nothing_accepts_nothing():
    assert not TicketKeeper(CALL, SESSION).claim(TicketKeeper(CALL, SESSION).issue())


def test_all_pages_behind_a_proxy_may_show_old_tickets_after_a_restart():
    wrong = WrongTickets()
    for _ in range(200):
        assert wrong.may_try("10.0.0.1", 0.0)
        wrong.count("10.0.0.1", 0.0)


def test_a_network_may_show_a_bounded_number_of_wrong_tickets():
    wrong = WrongTickets()
    tries = []
    for _ in range(MAX_FAILURES + 1):
        tries.append(wrong.may_try("10.0.0.1", 0.0))
        wrong.count("10.0.0.1", 0.0)
    assert tries == [True] * MAX_FAILURES + [False]
    assert wrong.may_try("10.0.0.2", 0.0)
    assert wrong.may_try("10.0.0.1", 60.0)


def event(text: str) -> dict:
    return {"type": "event", "event": {"text": text}}


def numbers(log: EventLog, after: int) -> list[int]:
    return [json.loads(text)["n"] for _, text in log.after(after)]


def test_missed_events_come_in_order():
    log = EventLog()
    for word in ["one", "two", "three"]:
        log.add(event(word))
    assert numbers(log, 0) == [1, 2, 3]
    assert numbers(log, 2) == [3]
    assert numbers(log, 3) == numbers(log, 99) == []
    assert numbers(log, -5) == [1, 2, 3]


def test_the_log_is_bounded_by_number_and_size():
    log = EventLog()
    for _ in range(MAX_EVENTS + 5):
        log.add(event(""))
    assert (len(numbers(log, 0)), log.dropped) == (MAX_EVENTS, 5)
    log.add(event("x" * MAX_CHARS))
    assert numbers(log, 0) == [MAX_EVENTS + 6]
