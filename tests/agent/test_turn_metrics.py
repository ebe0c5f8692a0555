import pytest

from duologue.agent.turn_metrics import TurnMetrics
from duologue.events import TurnMetricsEvent


def test_the_steps_of_a_turn():
    metrics = TurnMetrics()
    metrics.transcript_received(10.2)
    metrics.turn_ended(10.3, 10.0)
    metrics.text_received(10.4)
    metrics.text_received(10.9)
    metrics.audio_received(10.5)
    metrics.audio_received(10.9)
    event = metrics.reply_played("s", 10.6)
    assert event == TurnMetricsEvent(
        "s",
        endpoint_ms=pytest.approx(300),
        transcript_ms=pytest.approx(200),
        first_text_ms=pytest.approx(400),
        first_audio_ms=pytest.approx(500),
        first_played_ms=pytest.approx(600),
    )
    assert metrics.reply_played("s2", 11.0) is None


def test_unknown_times_are_none():
    metrics = TurnMetrics()
    metrics.turn_ended(10.3, None)
    event = metrics.reply_played("s", 10.6)
    assert event.endpoint_ms is event.first_played_ms is None
    assert event.transcript_ms is event.first_text_ms is event.first_audio_ms is None
    metrics.turn_ended(11.3, 11.0)
    event = metrics.reply_played("t", 11.6)
    assert (event.endpoint_ms, event.first_played_ms) == (300.0, 600.0)
    assert event.transcript_ms is None


def test_transcript_may_come_after_the_end_of_the_turn():
    metrics = TurnMetrics()
    metrics.turn_ended(10.3, 10.0)
    metrics.transcript_received(10.4)
    assert metrics.reply_played("s", 10.6).transcript_ms == 400.0


def test_transcript_of_an_earlier_turn_does_not_count():
    metrics = TurnMetrics()
    metrics.transcript_received(5.0)
    metrics.turn_ended(10.3, 10.0)
    assert metrics.reply_played("s", 10.6).transcript_ms is None


def test_interruption_forgets_the_turn():
    metrics = TurnMetrics()
    metrics.turn_ended(10.3, 10.0)
    metrics.reply_interrupted()
    assert metrics.reply_played("s", 10.6) is None


def test_speech_that_replies_to_no_turn_has_no_times():
    metrics = TurnMetrics()
    metrics.text_received(1.0)
    assert metrics.reply_played("s", 2.0) is None
