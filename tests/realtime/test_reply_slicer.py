import numpy as np
import pytest

from duologue.audio import AudioFrame
from duologue.realtime.outputs import ReplyAudio, ReplyDone, ReplyInterrupted
from duologue.realtime.reply_slicer import ReplySlicer

LOUD = AudioFrame(np.full(480, 5000, np.int16), 24000)
QUIET = AudioFrame(np.full(480, 90, np.int16), 24000)


def play(sound, frames):
    """Feed ``#`` as audio and ``.`` as silence; return what comes out, in the same signs."""
    out = ""
    for sign in frames:
        out += told(sound.push(LOUD if sign == "#" else QUIET))
    return out


def told(outputs):
    signs = ""
    for output in outputs:
        match output:
            case ReplyAudio(frame=frame):
                signs += "#" if frame is LOUD else "."
            case ReplyDone(status=status):
                signs += f"({status})"
            case ReplyInterrupted():
                signs += "!"
    return signs


def done(status="completed", reply_id="r"):
    return ReplyDone(reply_id, status)


@pytest.fixture
def sound():
    sound = ReplySlicer()
    sound.expect_audio("r", "item")
    return sound


def test_silence_between_replies_is_dropped(sound):
    assert play(sound, "." * 50) == ""
    assert sound.dropped_samples == 0


def test_a_reply_is_the_audio_between_started_and_stopped(sound):
    assert told(sound.buffer_started("r")) == ""
    [audio] = sound.push(LOUD)
    assert (audio.reply_id, audio.item_id) == ("r", "item")
    assert play(sound, "#..#.") == "#..#."
    assert told(sound.response_done(done())) == ""
    assert told(sound.buffer_stopped("r")) == "(completed)"
    assert play(sound, "#.#") == ""


def test_audio_before_started_belongs_to_the_reply_from_its_first_noise(sound):
    play(sound, "......##.#")
    assert told(sound.buffer_started("r")) == "##.#"
    assert play(sound, "#") == "#"


def test_no_more_than_240_ms_before_started_are_kept(sound):
    play(sound, "#" * 40)
    assert told(sound.buffer_started("r")) == "#" * 12
    assert sound.dropped_samples == 28 * 480


def test_audio_behind_stopped_continues_to_the_first_silence(sound):
    sound.buffer_started("r")
    play(sound, "##")
    sound.response_done(done())
    assert told(sound.buffer_stopped("r")) == ""
    assert play(sound, "##.##") == "##(completed)"


def test_audio_behind_stopped_ends_after_200_ms(sound):
    sound.buffer_started("r")
    play(sound, "##")
    sound.buffer_stopped("r")
    assert play(sound, "#" * 30) == "#" * 10
    assert told(sound.response_done(done())) == "(completed)"


def test_cleared_drops_the_rest_at_once_and_the_audio_in_flight(sound):
    sound.buffer_started("r")
    play(sound, "##")
    sound.response_done(done())
    assert told(sound.buffer_cleared("r", by_client=False)) == "!(cancelled)"
    assert play(sound, "###") == ""
    sound.expect_audio("next", "item 2")
    assert told(sound.buffer_started("next")) == ""
    assert play(sound, "#") == "#"


def test_cleared_by_us_interrupts_nothing_and_waits_for_done(sound):
    sound.buffer_started("r")
    play(sound, "#.")
    assert told(sound.buffer_cleared("r", by_client=True)) == ""
    assert told(sound.response_done(done("cancelled"))) == "(cancelled)"
    assert told(sound.buffer_cleared("r", by_client=False)) == ""


def test_done_without_audio_is_passed_on_at_once(sound):
    assert told(sound.response_done(done(reply_id="tools only"))) == "(completed)"


def test_done_before_started_waits_for_the_audio(sound):
    assert told(sound.response_done(done())) == ""
    sound.buffer_started("r")
    assert play(sound, "#.") == "#."
    assert told(sound.buffer_stopped("r")) == "(completed)"


def test_audio_that_never_begins_is_waited_for_no_longer_than_2_s(sound):
    play(sound, "." * 200)
    assert told(sound.response_done(done())) == ""
    assert play(sound, "." * 99) == ""
    assert play(sound, ".") == "(completed)"
    sound.expect_audio("next", "item 2")
    assert told(sound.response_done(done(reply_id="next"))) == ""
    assert play(sound, "." * 99) == ""
    sound.buffer_started("next")
    assert play(sound, "." * 200) == "." * 200


@pytest.mark.parametrize("status", ["cancelled", "failed"])
def test_a_reply_is_cut_before_its_audio_has_ended(sound, status):
    assert told(sound.response_done(done(status))) == f"({status})"
    assert told(sound.buffer_started("r")) == ""
    assert play(sound, "###") == ""


def test_the_next_reply_ends_the_tail_of_the_last(sound):
    sound.buffer_started("r")
    play(sound, "##")
    sound.response_done(done())
    sound.buffer_stopped("r")
    sound.expect_audio("next", "item 2")
    assert told(sound.buffer_started("next")) == "(completed)"
    assert [output.reply_id for output in sound.push(LOUD)] == ["next"]


def test_a_reply_that_starts_before_the_last_one_stops_waits_for_that(sound):
    sound.buffer_started("r")
    play(sound, "##")
    sound.response_done(done())
    sound.expect_audio("next", "item 2")
    assert told(sound.buffer_started("next")) == ""
    assert [output.reply_id for output in sound.push(LOUD)] == ["r"]
    assert told(sound.response_done(done(reply_id="next"))) == ""
    assert told(sound.buffer_stopped("r")) == ""
    assert play(sound, "#.") == "#(completed)"
    assert [output.reply_id for output in sound.push(QUIET)] == ["next"]
    assert told(sound.buffer_stopped("next")) == "(completed)"


def test_a_stop_without_a_start_ends_the_reply_before_it_too(sound):
    sound.buffer_started("r")
    play(sound, "#.")
    sound.response_done(done())
    sound.buffer_started("next")
    sound.response_done(done("failed", "next"))
    sound.expect_audio("third", "item 3")
    sound.buffer_started("third")
    assert told(sound.response_done(done(reply_id="third"))) == ""
    assert told(sound.buffer_stopped("third")) == "(completed)(completed)"


def test_a_reply_that_is_cleared_before_it_begins_never_begins(sound):
    sound.buffer_started("r")
    play(sound, "#")
    sound.expect_audio("next", "item 2")
    sound.buffer_started("next")
    sound.buffer_cleared("next", by_client=True)
    sound.buffer_cleared("r", by_client=True)
    assert play(sound, "###") == ""


def test_replies_behind_one_that_never_stops_are_bounded(sound):
    sound.buffer_started("r")
    sound.response_done(done())
    out = [told(sound.buffer_started(f"next {index}")) for index in range(9)]
    assert out == [""] * 8 + ["(completed)"]
