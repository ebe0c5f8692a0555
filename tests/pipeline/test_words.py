import hypothesis.strategies as st
import pytest
from hypothesis import given

from duologue.pipeline.words import has_words, plain_words, words_after

sentences = st.lists(st.sampled_from(["the", "cat", "sat", "on", "mats", "today"]), max_size=8)


@pytest.mark.parametrize("text", ["yes", "I", "a", "stop!", "uh no", "5", "Uh-huh, okay"])
def test_words(text):
    assert has_words(text)


@pytest.mark.parametrize("text", ["", "...", "Uh.", "hm, mhm", "Um... er", "t", "h h"])
def test_no_words(text):
    assert not has_words(text)


def test_plain_words_have_no_punctuation():
    assert plain_words("Don't STOP, now!") == ["don't", "stop", "now"]


@given(sentences, sentences)
def test_what_follows_what_was_there_already(before, after):
    text = " ".join(before + after)
    rest = words_after(text, " ".join(before))
    assert text.endswith(rest)
    if before:
        assert len(rest.split()) == len(after)
    else:
        assert rest == text


def test_what_was_there_may_be_written_otherwise_now():
    assert words_after("What is the weather in Rome?", "What's the weather") == "in Rome?"
    assert words_after("Hello. And so on", "hello,") == "And so on"
    assert words_after("Anything", "...") == "Anything"
