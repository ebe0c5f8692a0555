import hypothesis.strategies as st
import pytest
from hypothesis import example, given

from duologue.pipeline.clauses import LONG_CHARS, Clauses

MARKUP = str.maketrans("", "", "*_`#")


def clauses_of(text, sizes=()):
    clauses, out, at = Clauses(), [], 0
    for size in sizes:
        out += clauses.push(text[at : at + size])
        at += size
    return [*out, *clauses.push(text[at:]), *clauses.flush()]


@given(
    st.text(st.sampled_from("aB1 .,!?;:\n*_`#'\"é…"), max_size=200),
    st.lists(st.integers(0, 30), max_size=12),
)
@example("A. \n\nB", [3])
@example("\n\n Hello", [])
def test_nothing_is_lost_and_nothing_is_added(text, sizes):
    clauses = clauses_of(text, sizes)
    assert "".join(clauses).split() == text.translate(MARKUP).split()
    assert all(clause.strip() for clause in clauses)


@pytest.mark.parametrize(
    ("text", "clauses"),
    [
        ("Hello there. How are you?", ["Hello there. ", "How are you?"]),
        ("Yes! Of course. Why?", ["Yes! ", "Of course. ", "Why?"]),
        ("Ask Dr. Smith now.", ["Ask Dr. Smith now."]),
        ("It costs 3.50 euros.", ["It costs 3.50 euros."]),
        ('He said "Stop." Then he left.', ['He said "Stop." ', "Then he left."]),
        ("One\nTwo\n", ["One\n", "Two\n"]),
        ("# A **bold** `word`", [" A bold word"]),
        ("", []),
        (" \n ", []),
        ("...", ["..."]),
    ],
)
def test_cuts_are_where_a_speaker_would_pause(text, clauses):
    assert clauses_of(text) == clauses


def test_the_first_piece_may_end_at_a_comma_so_that_it_is_heard_sooner():
    assert clauses_of("Well, that is a good question, and I will answer it, now.") == [
        "Well, that is a good question, ",
        "and I will answer it, now.",
    ]
    assert clauses_of("That is a good question, yes. No.")[0] == "That is a good question, "


def test_a_very_long_sentence_is_cut_at_a_comma():
    long = "First. " + "word " * (LONG_CHARS // 5) + "more, and then, the rest."
    clauses = clauses_of(long)
    assert len(clauses) == 3
    assert clauses[1].endswith("more, ")


def test_a_clause_is_given_as_soon_as_it_is_complete():
    clauses = Clauses()
    assert clauses.push("Hello there.") == []
    assert clauses.push(" How") == ["Hello there. "]
    assert clauses.flush() == ["How"]
    assert clauses.flush() == []
