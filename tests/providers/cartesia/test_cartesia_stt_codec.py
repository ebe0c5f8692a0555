import json

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from duologue.errors import SessionError
from duologue.pipeline.interfaces import (
    TurnEnded,
    TurnMayEnd,
    TurnResumed,
    TurnStarted,
    TurnUpdated,
)
from duologue.pipeline.stt_codec import RecognitionFailed
from duologue.providers.cartesia._stt_codec import CartesiaTurnsCodec
from duologue.realtime import BinaryMessage


def codec():
    return CartesiaTurnsCodec(lambda code, text: SessionError(text, code=code))


def event(**fields):
    return json.dumps(fields).encode()


def test_audio_goes_out_as_it_is():
    samples = np.array([1, -2, 3], np.int16)
    [message] = codec().audio(samples)
    assert isinstance(message, BinaryMessage)
    assert message == samples.astype("<i2").tobytes()


def test_commands_that_the_service_does_not_have_send_nothing():
    one = codec()
    assert [*one.open(), *one.settle(), *one.end_turn(), *one.keep_alive()] == []
    assert [json.loads(message) for message in one.closing()] == [{"type": "close"}]


def test_turns_are_counted_by_their_ends():
    one = codec()
    kinds = ("turn.start", "turn.update", "turn.eager_end", "turn.resume", "turn.end", "turn.start")
    told = [out for kind in kinds for out in one.decode(event(type=kind, transcript="hello"))]
    assert told == [
        TurnStarted(0),
        TurnUpdated(0, "hello"),
        TurnMayEnd(0, "hello"),
        TurnResumed(0),
        TurnEnded(0, "hello"),
        TurnStarted(1),
    ]


def test_errors_have_the_words_of_the_service():
    told = codec().decode(event(type="error", status_code=401, title="No key", message="Bad key"))
    [failed] = told
    assert isinstance(failed, RecognitionFailed)
    assert (str(failed.error), failed.error.code, failed.benign) == ("Bad key", "401", False)


def test_what_is_unknown_or_malformed_is_counted():
    one = codec()
    assert one.decode(event(type="connected", request_id="r")) == ()
    assert [*one.decode(b"nothing"), *one.decode(event(type="news"))] == []
    assert (one.malformed, one.unknown) == (1, 1)


@given(st.binary() | st.dictionaries(st.text(), st.text()).map(lambda d: json.dumps(d).encode()))
def test_nothing_makes_it_raise(message):
    codec().decode(message)
