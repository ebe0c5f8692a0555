"""No message from a server is fatal to a Gemini session."""

import json

from gemini_codec_harness import Harness, encoded
from hypothesis import given
from hypothesis import strategies as st

from duologue.realtime.commands import RequestReply
from duologue.realtime.outputs import ReplyAudio, ReplyDone, ReplyStarted, ReplyText

JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inside: (
        st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=5), inside, max_size=3)
    ),
    max_leaves=8,
)
FIELDS = {
    "setupComplete": ["sessionId"],
    "serverContent": [
        "modelTurn", "turnComplete", "interrupted", "generationComplete", "inputTranscription",
        "outputTranscription", "turnCompleteReason", "interactionStatus", "groundingMetadata",
    ],
    "toolCall": ["functionCalls"],
    "toolCallCancellation": ["ids"],
    "usageMetadata": ["promptTokenCount", "promptTokensDetails", "thoughtsTokenCount"],
    "goAway": ["timeLeft"],
    "sessionResumptionUpdate": ["newHandle", "resumable"],
    "error": ["code", "message", "status"],
    "voiceActivity": ["voiceActivityType"],
    "brandNew": ["x"],
}  # fmt: skip
PARTS = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "inlineData": st.fixed_dictionaries(
                {
                    "mimeType": st.sampled_from(["audio/pcm;rate=24000", "audio/pcm", "image/png"])
                    | JUNK,
                    "data": st.binary(max_size=7).map(encoded) | JUNK,
                }
            ),
            "text": JUNK,
        },
    ),
    max_size=3,
)
CALLS = st.lists(
    st.fixed_dictionaries({}, optional={"id": JUNK, "name": st.text() | JUNK, "args": JUNK}),
    max_size=3,
)
INNER = {
    "modelTurn": st.fixed_dictionaries({"parts": PARTS | JUNK}) | JUNK,
    "functionCalls": CALLS | JUNK,
    "turnComplete": st.booleans() | JUNK,
    "interrupted": st.booleans() | JUNK,
    "generationComplete": st.booleans() | JUNK,
    "inputTranscription": st.fixed_dictionaries({"text": st.text() | JUNK}) | JUNK,
    "outputTranscription": st.fixed_dictionaries({"text": st.text() | JUNK}) | JUNK,
    "newHandle": st.text() | JUNK,
    "resumable": st.booleans() | JUNK,
    "ids": st.lists(st.text() | JUNK, max_size=3) | JUNK,
}
MESSAGES = st.fixed_dictionaries(
    {},
    optional={
        name: st.fixed_dictionaries({}, optional={f: INNER.get(f, JUNK) for f in fields}) | JUNK
        for name, fields in FIELDS.items()
    },
)


@given(st.lists(MESSAGES, max_size=12), st.booleans())
def test_no_message_is_fatal_and_replies_are_well_formed(messages, asks):
    """Decode any messages: nothing raises, and each reply has a start first and an end last."""
    harness = Harness()
    began, ended, asked = set(), set(), 0
    for index, message in enumerate(messages):
        if asks and index % 3 == 0:
            harness.codec.encode(RequestReply(f"q{index}"))
        for output in harness.codec.decode(json.dumps(message).encode()):
            match output:
                case ReplyStarted(reply_id=reply_id, request_id=request_id):
                    assert reply_id not in began
                    began.add(reply_id)
                    asked += request_id is not None
                case ReplyAudio(reply_id=reply_id, frame=frame):
                    assert reply_id in began - ended
                    assert len(frame)
                    assert frame.rate > 0
                case ReplyText(reply_id=reply_id):
                    assert reply_id in began
                case ReplyDone(reply_id=reply_id):
                    assert reply_id in began - ended
                    ended.add(reply_id)
        harness.codec.pending()
    assert len(began - ended) <= 1
    assert asked <= len(messages) // 3 + 1
    assert harness.codec.unknown["brandNew"] == sum("brandNew" in message for message in messages)


@given(st.binary())
def test_no_bytes_are_fatal(data):
    assert isinstance(Harness(live=False).codec.decode(data), list | tuple)
