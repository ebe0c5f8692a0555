import hypothesis.strategies as st
from hypothesis import given

from duologue.pipeline._word_alignment import WordAligner

RATE = 24000


def spoken(text, tokens, *, samples=RATE * 10, pieces=None):
    """Return what an aligner makes of a text and its tokens, as (text, start s, end s)."""
    aligner = WordAligner(RATE)
    out = []
    for piece in pieces or [text]:
        out += aligner.send(piece)
    for token, start, end in tokens:
        out += aligner.token(token, start, end)
    out += aligner.finish(samples)
    return [(word.text, round(word.start / RATE, 3), round(word.end / RATE, 3)) for word in out]


def test_words_get_their_spaces_and_punctuation():
    tokens = [("Hello", 0.1, 0.4), ("there,", 0.4, 0.8), ("friend", 1.2, 1.6)]
    assert spoken("Hello there, friend. ", tokens) == [
        ("Hello ", 0.1, 0.4),
        ("there, ", 0.4, 0.8),
        ("friend. ", 1.2, 1.6),
    ]


def test_a_number_that_is_written_out_keeps_its_digits():
    tokens = [("costs", 0.1, 0.5), ("five", 0.5, 0.7), ("dollars", 0.7, 1.0), ("now", 1.2, 1.4)]
    assert spoken("costs $5, now and", tokens) == [
        ("costs ", 0.1, 0.5),
        ("$5, now ", 0.5, 1.4),
        ("and", 1.4, 10.0),
    ]


def test_a_word_in_two_messages_is_one_word():
    tokens = [("t", 0.1, 0.2), ("alent", 0.2, 0.6), ("shows", 0.6, 1.0)]
    assert spoken("talent shows up", tokens)[:2] == [("talent ", 0.1, 0.6), ("shows ", 0.6, 1.0)]


def test_scripts_without_spaces_are_timed_by_the_character():
    text = "你好。吃了吗"
    tokens = [
        (character, index * 0.1, index * 0.1 + 0.1) for index, character in enumerate("你好吃了吗")
    ]
    assert spoken(text, tokens)[:3] == [("你", 0.0, 0.1), ("好。", 0.1, 0.2), ("吃", 0.2, 0.3)]


def test_korean_words_keep_their_spaces_although_tokens_are_syllables():
    tokens = [(c, i * 0.2, i * 0.2 + 0.2) for i, c in enumerate("안녕하세요여러분")]
    assert [word for word, _, _ in spoken("안녕하세요 여러분 ", tokens)] == [
        "안녕하세요 ",
        "여러분 ",
    ]


def test_the_last_word_waits_until_it_is_known_to_be_complete():
    aligner = WordAligner(RATE)
    aligner.send("may")
    assert aligner.token("may", 0.0, 0.3) == []
    assert aligner.send("be ") == []
    assert [word.text for word in aligner.token("be", 0.3, 0.5)] == ["maybe "]
    assert aligner.send("so") == aligner.token("so", 0.6, 0.8) == []
    assert [(word.text, word.end) for word in aligner.finish(RATE)] == [("so", 0.8 * RATE)]


def test_text_without_any_token_is_spread_over_the_audio():
    assert spoken("2 + 2 = 4", [], samples=RATE) == [("2 + 2 = 4", 0.0, 1.0)]


def test_tags_and_punctuation_alone_are_no_words():
    tokens = [("<break>", 0, 0), (",", 0.3, 0.3), ("Well", 0.3, 0.5), ("go", 0.6, 0.7)]
    assert spoken("Well, go on, then.", tokens)[:2] == [("Well, ", 0.3, 0.5), ("go ", 0.6, 0.7)]


def test_times_that_go_back_or_are_no_numbers_do_no_harm():
    tokens = [("one", 0.5, 0.7), ("two", 0.1, 0.2), ("three", float("nan"), 1.0), ("four", 0.9, 1)]
    starts = [start for _, start, _ in spoken("one two three four five", tokens)]
    assert starts == sorted(starts)


def test_two_words_that_were_spoken_otherwise_are_one_text():
    tokens = [
        ("A", 0.0, 0.2),
        ("hundred", 0.2, 0.6),
        ("euros", 0.6, 1.0),
        ("please", 1.0, 1.4),
        ("now", 1.5, 1.8),
    ]
    assert [word for word, _, _ in spoken("A 100 € please, now.", tokens)] == [
        "A ",
        "100 € please, ",
        "now.",
    ]


def test_text_that_was_begun_is_ended_before_a_word_far_on():
    aligner = WordAligner(RATE)
    aligner.send("abc def ghi ")
    assert aligner.token("ab", 0.0, 0.2) == []
    assert aligner.token("xyz", 0.3, 0.5) == []
    words = aligner.token("ghi", 0.6, 0.8)
    assert [(word.text, word.start) for word in words] == [
        ("abc def ", 0),
        ("ghi ", round(0.3 * RATE)),
    ]


def test_nothing_is_left_after_the_last_word():
    aligner = WordAligner(RATE)
    aligner.send("Hi. ")
    assert [word.text for word in aligner.token("Hi", 0.0, 0.2)] == ["Hi. "]
    assert aligner.rest == ""
    assert aligner.finish(RATE) == []


words = st.lists(
    st.sampled_from(["a", "bc", "Hello,", "5", "one.", "你好。", "über", "-"]), max_size=12
)


@given(words, st.data())
def test_the_joined_texts_are_what_was_sent(sent, data):
    text = " ".join(sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=4)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    tokens = data.draw(
        st.lists(
            st.tuples(
                st.sampled_from([*sent, "zz", "", "bc", "<x>"]), st.floats(0, 9), st.floats(0, 9)
            ),
            max_size=14,
        )
    )
    out = spoken(text, tokens, pieces=pieces)
    assert "".join(word for word, _, _ in out) == text
    assert all(end >= start for _, start, end in out)
    starts = [start for _, start, _ in out]
    assert starts == sorted(starts)
