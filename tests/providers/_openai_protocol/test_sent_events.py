"""Events that were sent, and what an error about one of them means."""

import json
from types import SimpleNamespace

import pytest

from duologue.errors import ErrorKind
from duologue.providers._openai_protocol.errors import Meaning
from duologue.providers._openai_protocol.pending_requests import PendingRequests
from duologue.providers._openai_protocol.sent_events import PING_ID, SentEvents
from duologue.realtime.outputs import Alive, ProviderError, ReplyRefused, UserTurnEnded

UPDATE = {"type": "session.update", "session": {"instructions": "Be kind."}}
COMMIT = {"type": "input_audio_buffer.commit"}
DELETE = {"type": "conversation.item.delete", "item_id": "a"}
TRUNCATE = {"type": "conversation.item.truncate", "item_id": "a", "audio_end_ms": 900}
CREATE = {"type": "conversation.item.create", "item": {"id": "b"}, "previous_item_id": "a"}
MEANINGS = {"busy": Meaning.BUSY, "speaking": Meaning.USER_SPEAKING, "empty": Meaning.EMPTY_TURN}
KINDS = {"fatal": ErrorKind.FATAL, "later": ErrorKind.RETRY}


class Deleted(list):
    item_deleted = list.append


def make(*, correlates_errors=True, started=True):
    dialect = SimpleNamespace(
        correlates_errors=correlates_errors,
        kind_of=lambda code, *_: KINDS.get(code, ErrorKind.UNKNOWN),
        meaning_of=lambda code, _: MEANINGS.get(code),
    )
    conversation = Deleted()
    requests = PendingRequests(correlates_errors=correlates_errors)
    events = SentEvents(dialect, conversation, requests)
    events.session_started = started
    return events, requests, conversation


def send(events, event, request_id=None):
    """Send an event; return its id."""
    sent = json.loads(events.encode(event, request_id))
    assert {key: value for key, value in sent.items() if key != "event_id"} == event
    return sent["event_id"]


def refuse(events, code="wrong", event_id=None, message="no"):
    error = {"code": code, "message": message}
    if event_id is not None:
        error["event_id"] = event_id
    return list(events.error_received({"error": error}))


def queued(events):
    return [json.loads(event) for event in events.take_queued()]


def test_every_event_has_an_id_of_its_own():
    events, *_ = make()
    ids = [send(events, event) for event in (UPDATE, COMMIT, UPDATE, {"type": "response.cancel"})]
    assert ids == ["update_1", "commit_2", "update_3", "cancel_4"]
    assert send(events, {"type": "response.create"}, "q") == "request_q"
    assert events.next_id("x") == "x_5"


def test_queued_events_are_taken_once():
    events, *_ = make()
    events.queue([UPDATE, COMMIT])
    assert [event["type"] for event in queued(events)] == [UPDATE["type"], COMMIT["type"]]
    assert queued(events) == []


def test_an_error_about_nothing_that_was_sent_is_reported():
    events, *_ = make()
    assert refuse(events) == [ProviderError(ErrorKind.UNKNOWN, "wrong", "no")]
    assert refuse(events, event_id="unknown") == [ProviderError(ErrorKind.UNKNOWN, "wrong", "no")]
    assert list(events.error_received({"error": {"type": "server_error"}})) == [
        ProviderError(ErrorKind.UNKNOWN, "server_error", "server_error")
    ]
    assert list(events.error_received({"error": {}})) == [
        ProviderError(ErrorKind.UNKNOWN, "error", "error")
    ]


def test_a_refused_ping_shows_that_the_server_is_alive():
    events, *_ = make()
    assert refuse(events, event_id=PING_ID) == [Alive()]


def test_a_refused_request_is_reported_as_that():
    events, requests, _ = make()
    send(events, {"type": "response.create"}, "q")
    assert refuse(events, event_id="request_q") == [ReplyRefused("q", "wrong", "no", busy=False)]
    send(events, {"type": "response.create"}, "q")
    assert refuse(events, "busy") == [ReplyRefused("q", "busy", "no", busy=True)]
    send(events, {"type": "response.create"}, "q")
    assert refuse(events, "fatal", "request_q") == [
        ReplyRefused("q", "fatal", "no", busy=False),
        ProviderError(ErrorKind.FATAL, "fatal", "no"),
    ]
    assert requests.pop_oldest() is None


def test_a_request_refused_because_the_person_speaks_waits_for_their_turn():
    events, requests, _ = make()
    send(events, {"type": "response.create"}, "q")
    assert refuse(events, "speaking") == []
    assert requests.turn_ended(reply_follows=False) == [
        ReplyRefused("q", "speaking", "no", busy=True)
    ]


def test_a_busy_server_refuses_the_automatic_reply_first():
    events, requests, _ = make()
    requests.turn_ended(reply_follows=True)
    assert refuse(events, "busy") == [ReplyRefused("", "busy", "no", busy=True)]


@pytest.mark.parametrize("started", [False, True])
def test_the_configuration_is_fatal_if_it_was_refused_at_the_beginning(started):
    events, *_ = make(started=started)
    (error,) = refuse(events, event_id=send(events, UPDATE))
    assert error.kind is (ErrorKind.UNKNOWN if started else ErrorKind.FATAL)


def test_an_empty_turn_ends():
    events, *_ = make()
    event_id = send(events, COMMIT)
    ended, error = refuse(events, "empty", event_id)
    assert ended == UserTurnEnded(event_id, reply_follows=False, empty=True)
    assert error.kind is ErrorKind.BENIGN
    (error,) = refuse(events, "wrong", send(events, COMMIT))
    assert error.kind is ErrorKind.UNKNOWN


def test_refused_edits_are_repaired_and_harmless():
    events, _, conversation = make()
    for event in (DELETE, {"type": "output_audio_buffer.clear"}, CREATE):
        (error,) = refuse(events, event_id=send(events, event))
        assert error.kind is ErrorKind.BENIGN
    assert conversation == ["a"]
    # The item is appended, as its predecessor no longer exists.
    (again,) = queued(events)
    assert (again["type"], again["item"]) == (CREATE["type"], {"id": "b"})
    assert "previous_item_id" not in again
    # The new one is not tracked: it is not tried a third time.
    (error,) = refuse(events, event_id=again["event_id"])
    assert error.kind is ErrorKind.UNKNOWN


@pytest.mark.parametrize(
    ("message", "end_ms", "kind"),
    [
        ("Audio content of 700ms is already shorter than 900ms", 700, ErrorKind.BENIGN),
        ("Audio content of 900 ms", None, ErrorKind.BENIGN),
        ("Audio content of 0ms", None, ErrorKind.BENIGN),
        ("no", None, ErrorKind.UNKNOWN),
    ],
)
def test_a_truncation_beyond_the_audio_is_made_at_its_end(message, end_ms, kind):
    events, *_ = make()
    (error,) = refuse(events, event_id=send(events, TRUNCATE), message=message)
    assert error.kind is kind
    assert [event["audio_end_ms"] for event in queued(events)] == ([end_ms] if end_ms else [])


def test_a_server_that_names_no_event_is_taken_to_mean_the_likely_one():
    events, *_ = make(correlates_errors=False, started=False)
    send(events, UPDATE)
    assert refuse(events)[0].kind is ErrorKind.FATAL
    events, *_ = make(correlates_errors=False)
    event_id = send(events, COMMIT)
    assert refuse(events, "empty")[0].item_id == event_id
    assert refuse(events) == [ProviderError(ErrorKind.UNKNOWN, "wrong", "no")]
    send(events, {"type": "response.create"}, "q")
    assert refuse(events, "later") == [ReplyRefused("q", "later", "no", busy=False)]


def test_stored_events_are_bounded():
    events, *_ = make()
    ids = [send(events, DELETE) for _ in range(300)]
    assert refuse(events, event_id=ids[0])[0].kind is ErrorKind.UNKNOWN
    assert refuse(events, event_id=ids[-1])[0].kind is ErrorKind.BENIGN
