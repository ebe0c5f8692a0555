from hypothesis import given
from hypothesis import strategies as st

from duologue.pipeline._stable_text import MIN_NEW_CHARS, StableText

WORDS = "Could you tell me when the last train leaves for the coast?"


def takes(*transcripts):
    """Return what there is to read after each of the partial transcripts."""
    stable = StableText("turn")
    taken = []
    for text in transcripts:
        stable.push(text)
        taken.append(stable.take())
    return taken


def test_first_there_is_only_the_conversation_to_read():
    assert takes("Could") == [""]
    assert takes("Could", "Could you") == ["", None]


def test_text_is_read_once_two_transcripts_agree_on_it():
    assert takes("Could.", "Could you tell me.", "Could you tell me when the")[1:] == [
        None,
        "Could you tell me",
    ]


def test_text_is_read_in_pieces_that_are_worth_it():
    taken = takes(*(WORDS[:end] for end in range(4, len(WORDS))))
    read = [text for text in taken if text]
    assert len(read) == len(WORDS) // MIN_NEW_CHARS
    assert all(WORDS.startswith(text) for text in read)


def test_text_that_has_changed_is_read_again():
    first, second = "I would like to fly there in June.", "I would like two flights in June."
    assert takes(first, first, second, second) == ["", first, None, second]


def test_a_long_first_transcript_is_read_at_once():
    stable = StableText("turn")
    stable.push(WORDS)
    stable.push(WORDS)
    assert stable.take() == WORDS
    assert stable.take() is None


@given(st.lists(st.text("ab ", max_size=60)))
def test_what_is_read_is_the_beginning_of_both_transcripts(transcripts):
    stable = StableText("turn")
    last = ""
    for text in transcripts:
        stable.push(text)
        taken = stable.take()
        assert taken is None or (text.startswith(taken) and last.startswith(taken))
        last = text
