import time

import hypothesis.strategies as st
import pytest
from hypothesis import given

from duologue.vad.words import has_words, plain_words, shared_length, words_after

sentences = st.lists(st.sampled_from(["the", "cat", "sat", "on", "mats", "today"]), max_size=8)


@pytest.mark.parametrize(
    "text",
    [
        *("yes", "I", "a", "stop!", "uh no", "5", "Uh-huh, okay", "(555) 0199", "J.", "don\u2019t"),
        *(
            "हाँ",
            "रुको",
            "是",
            "停",
            "はい",
            "うん",
            "네",
            "ใช่",
            "نعم",
            "می\u200cخواهم",
            "כן",
            "да",
            "я",
        ),
        *("é", "ναι", "አዎ", "五", "५", "अच्छा"),
    ],
)
def test_texts_with_words(text):
    assert has_words(text)


@pytest.mark.parametrize(
    "text",
    [
        *("", "...", "Uh.", "hm, mhm", "Um... er", "t", "h h", "hmmmm", "Uhhh?", "Mm-hm."),
        *("嗯", "嗯嗯。", "えーと", "음", "äh", "эм", "हम्म", "。", "।", "😀", "\u093e"),
        *("[Music]", "(coughs)", "*sighs*", "♪ la la la ♪", "♪♪", "<unk>", "[BLANK_AUDIO]"),
    ],
)
def test_texts_without_words(text):
    assert not has_words(text)


def test_plain_words_have_no_punctuation():
    assert plain_words("Don't STOP, now!") == ["don't", "stop", "now"]


@given(sentences, sentences)
def test_text_after_a_known_beginning(before, after):
    text = " ".join(before + after)
    rest = words_after(text, " ".join(before))
    assert text.endswith(rest)
    if before:
        assert len(rest.split()) == len(after)
    else:
        assert rest == text


def test_known_beginning_may_be_spelled_differently_now():
    assert words_after("What is the weather in Rome?", "What's the weather") == "in Rome?"
    assert words_after("Hello. And so on", "hello,") == "And so on"
    assert words_after("Anything", "...") == "Anything"


@pytest.mark.parametrize(
    ("text", "before", "rest"),
    [
        ("今天很暖和。明天呢？", "今天很暖和。", "明天呢？"),
        ("今日は暖かいですね。明日は？", "今日は暖かいです。", "ね。明日は？"),
        ("今日は「テスト」です。はい", "今日はテストです", "はい"),
        ("สวัสดีครับผมชื่อสมชาย", "สวัสดีครับ", "ผมชื่อสมชาย"),
        ("आज मौसम अच्छा है। और कल?", "आज मौसम अच्छा है।", "और कल?"),
        ("오늘은 따뜻해요. 내일은요?", "오늘은 따뜻해요.", "내일은요?"),
        ("My number is 555-123-4567.", "My number is 555.", "123-4567."),
        ("My number is 5551234567", "My number is 555 123", "4567"),
        ("It is J-O-H-N.", "It is J-O", "H-N."),
        ("It costs $5. $6 for two", "It costs $5", "$6 for two"),
        ("Hola. ¿Y tú?", "hola", "¿Y tú?"),
        ("It is warm. (Really.)", "It is warm", "(Really.)"),
        ("İyi günler. Nasılsın", "İyi günler", "Nasılsın"),
        ("Hello", "Hello", ""),
        ("Hello. ...", "Hello", ""),
    ],
)
def test_text_after_a_known_beginning_in_any_script(text, before, rest):
    assert words_after(text, before) == rest


@given(st.text(max_size=60), st.text(max_size=60))
def test_rest_of_any_text_is_its_end(text, before):
    assert text.endswith(words_after(text, before))


def test_long_transcript_is_cut_without_blocking_the_loop():
    before = "one two three four five six seven eight nine ten " * 20
    began = time.perf_counter()
    assert words_after(before + "and eleven", before) == "and eleven"
    assert time.perf_counter() - began < 0.05


def test_shared_length():
    assert shared_length("", "a") == 0
    assert shared_length("abc", "abd") == 2
    assert shared_length("ab", "abc") == 2
