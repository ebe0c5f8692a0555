"""Matching responses and errors with the requests that caused them."""

from duologue.providers._openai_protocol.pending_requests import PendingRequests
from duologue.realtime.outputs import ReplyRefused


def test_a_response_that_names_its_request_answers_that():
    requests = PendingRequests(correlates_errors=True)
    assert requests.add("a") == "request_a"
    assert requests.match_response("a") == "a"
    # Such a server names all of them: one without a name is its own idea.
    requests.add("b")
    assert requests.match_response(None) is None


def test_until_a_server_has_named_one_its_responses_come_in_order():
    requests = PendingRequests(correlates_errors=True)
    requests.add("a")
    requests.add("b")
    assert [requests.match_response(None) for _ in range(3)] == ["a", "b", None]


def test_the_automatic_reply_to_a_turn_comes_before_the_request():
    requests = PendingRequests(correlates_errors=False)
    requests.add("a")
    requests.turn_ended(reply_follows=True)
    assert [requests.match_response(None) for _ in range(2)] == [None, "a"]
    requests.add("b")
    requests.turn_ended(reply_follows=False)
    assert requests.match_response(None) == "b"


def test_a_new_request_shows_that_earlier_ones_and_automatic_replies_were_lost():
    requests = PendingRequests(correlates_errors=False)
    requests.add("a")
    requests.turn_ended(reply_follows=True)
    requests.add("b")
    assert requests.match_response(None) == "b"
    assert requests.pop_oldest() is None


def test_an_automatic_reply_may_be_refused_once():
    requests = PendingRequests(correlates_errors=False)
    assert not requests.drop_automatic_reply()
    requests.turn_ended(reply_follows=True)
    assert requests.drop_automatic_reply()
    assert not requests.drop_automatic_reply()


def test_an_error_names_its_request_or_is_about_the_only_one():
    named = PendingRequests(correlates_errors=True)
    named.add("a")
    assert named.pop_refused("audio_1") is None
    assert named.pop_failed() is None
    assert named.pop_refused("request_a") == "a"
    unnamed = PendingRequests(correlates_errors=False)
    unnamed.add("a")
    assert unnamed.pop_failed() == "a"
    unnamed.add("b")
    unnamed.turn_ended(reply_follows=True)
    assert unnamed.pop_failed() is None  # It may be about the automatic reply.


def test_a_refusal_for_the_persons_sake_is_kept_until_their_turn_ends():
    requests = PendingRequests(correlates_errors=True)
    refusal = ReplyRefused("a", "speaking", "the person speaks", busy=True)
    requests.hold_refusal(refusal)
    assert requests.turn_ended(reply_follows=True) == [refusal]
    assert requests.turn_ended(reply_follows=True) == []


def test_requests_are_bounded():
    requests = PendingRequests(correlates_errors=True)
    for number in range(1000):
        requests.add(str(number))
    assert requests.pop_oldest() == str(1000 - 256)
