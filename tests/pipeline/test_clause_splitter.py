import hypothesis.strategies as st
import pytest
from hypothesis import example, given

from duologue.pipeline._clause_splitter import (
    LONG_CHARS,
    MAX_CHARS,
    MAX_FIRST_CHARS,
    ClauseSplitter,
)


def clauses_of(text, sizes=(), hurry=True):
    clauses, out, at = ClauseSplitter(hurry=hurry), [], 0
    for size in sizes:
        out += clauses.push(text[at : at + size])
        at += size
    return [*out, *clauses.push(text[at:]), *clauses.flush()]


@given(
    st.text(st.sampled_from("aB1 .,!?;:\n*_`#'\"é…今天。，？हाँ।ก"), max_size=300),
    st.lists(st.integers(0, 30), max_size=12),
)
@example("A. \n\nB", [3])
@example("\n\n Hello", [])
def test_no_text_is_lost_or_added(text, sizes):
    clauses = clauses_of(text, sizes)
    assert "".join(clauses).split() == text.split()
    assert all(clause.strip() for clause in clauses)
    assert max((len(clause.strip()) for clause in clauses), default=0) <= MAX_CHARS
    assert [clause.strip() for clause in clauses] == [c.strip() for c in clauses_of(text)]


@pytest.mark.parametrize(
    ("text", "clauses"),
    [
        ("Hello there. How are you?", ["Hello there. ", "How are you?"]),
        ("Yes! Of course. Why?", ["Yes! ", "Of course. ", "Why?"]),
        ("Ask Dr. Smith now.", ["Ask Dr. Smith now."]),
        ("It costs 3.50 euros.", ["It costs 3.50 euros."]),
        ('He said "Stop." Then he left.', ['He said "Stop." ', "Then he left."]),
        ("One\nTwo\n", ["One\n", "Two\n"]),
        ("", []),
        (" \n ", []),
        ("...", ["..."]),
    ],
)
def test_cuts_are_where_a_speaker_pauses(text, clauses):
    assert clauses_of(text) == clauses


def test_first_clause_may_end_at_a_comma_to_be_heard_sooner():
    assert clauses_of("Well, that is a good question, and I will answer it, now.") == [
        "Well, that is a good question, ",
        "and I will answer it, now.",
    ]
    assert clauses_of("That is a good question, yes. No.")[0] == "That is a good question, "


def test_very_long_sentence_is_cut_at_a_comma():
    long = "First. " + "word " * (LONG_CHARS // 5) + "more, and then, the rest."
    clauses = clauses_of(long)
    assert len(clauses) == 3
    assert clauses[1].endswith("more, ")


def test_clause_is_returned_as_soon_as_it_is_complete():
    clauses = ClauseSplitter()
    assert clauses.push("Hello there.") == []
    assert clauses.push(" How") == ["Hello there. "]
    assert clauses.flush() == ["How"]
    assert clauses.flush() == []


@pytest.mark.parametrize(
    ("text", "clauses"),
    [
        ("今天很好。公园有花！去吗？好", ["今天很好。", "公园有花！", "去吗？", "好"]),
        ("他说：「好。」然后走了。", ["他说：「好。」", "然后走了。"]),
        ("真的？！是的……好吧", ["真的？！", "是的……", "好吧"]),
        ("好!明天见", ["好!", "明天见"]),
        ("はい。今日は晴れです。", ["はい。", "今日は晴れです。"]),
        ("नमस्ते। आज मौसम अच्छा है।", ["नमस्ते। ", "आज मौसम अच्छा है।"]),
        ("كيف حالك؟ أنا بخير.", ["كيف حالك؟ ", "أنا بخير."]),
        ("آپ کیسے ہیں؟ ٹھیک ہوں۔ اچھا", ["آپ کیسے ہیں؟ ", "ٹھیک ہوں۔ ", "اچھا"]),
        ("ሰላም። እንዴት ነህ?", ["ሰላም። ", "እንዴት ነህ?"]),
        ("Բարև։ Ինչպես ես", ["Բարև։ ", "Ինչպես ես"]),
    ],
)
def test_sentences_of_every_script_are_cut(text, clauses):
    for size in (1, 2, 5, 100):
        assert clauses_of(text, [size] * len(text), hurry=False) == clauses


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("今天天气很好，我们去公园。", "今天天气很好，"),
        ("مرحبا، كيف حالك؟", "مرحبا، "),
        ("สวัสดีครับ วันนี้อากาศดีมาก", "สวัสดีครับ "),
    ],
)
def test_first_clause_may_end_at_the_comma_of_any_script(text, first):
    assert clauses_of(text, [1] * len(text))[0] == first


@pytest.mark.parametrize(
    "text",
    [
        "the hotel has a lot of rooms and the garden is big and there are books " * 8,
        "el hotel tiene muchas habitaciones, un jardín grande, una piscina azul, " * 8,
        "garden room " * 60,
        "字" * 700,
        "a" * 700,
        "วันนี้อากาศดีมาก" * 50,
        "👨‍👩‍👧" * 90,
    ],
)
def test_text_without_full_stops_is_cut(text):
    for size in (1, 7, len(text)):
        clauses = clauses_of(text, [size] * len(text))
        assert "".join(clauses) == text
        assert len(clauses[0].strip()) <= MAX_FIRST_CHARS
        assert max(len(clause.strip()) for clause in clauses) <= MAX_CHARS
        assert all(clause.endswith(" ") or " " not in text for clause in clauses)
        assert all("👨" not in text or len(clause) % 5 == 0 for clause in clauses)


@pytest.mark.parametrize(
    "text",
    [
        "Breakfast is from 7 a.m. to 10 a.m. on weekdays.",
        "We open at 9 a.m. Monday to Friday, and close at 7 p.m. Eastern time.",
        "She moved to the U.S. in spring.",
        "The U.S. Senate met.",
        "It costs approx. ninety euros.",
        "He works for Acme Inc. in Boston.",
        "Ask for J. R. Smith or Mrs. Jones.",
        "Bring pens, paper, etc. to No. 5.",
        "It is Jan. 5 today.",
        "Das ist z.B. am 3. Mai gut.",
        "1. Rooms",
    ],
)
def test_abbreviation_does_not_end_a_sentence(text):
    for size in (1, 3, 100):
        assert clauses_of(text, [size] * len(text), hurry=False) == [text]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("We are open until 10 p.m. ", "Then we close."),
        ("She lives in the U.S. ", "It is far."),
        ("He works for Acme Inc. ", "The firm is big."),
        ("No. ", "We close at ten."),
        ("Take plan B. ", "That is cheaper."),
        ("So do I. ", "You know."),
        ("It costs 90. ", "Anything else?"),
        ("i am here. ", "you too."),
    ],
)
def test_sentence_may_end_with_an_abbreviation(first, second):
    for size in (1, 3, 100):
        assert clauses_of(first + second, [size] * 100, hurry=False) == [first, second]
