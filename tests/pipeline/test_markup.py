import hypothesis.strategies as st
import pytest
from hypothesis import given

from duologue.pipeline._markup import MarkupFilter


def plain(text, size=1000):
    markup = MarkupFilter()
    pieces = [markup.push(text[at : at + size]) for at in range(0, len(text), size)]
    return "".join([*pieces, markup.flush()])


@pytest.mark.parametrize(
    "text",
    [
        *("C# is a language.", "3 * 4 is 12.", "3 * 4 * 5", "Open my_notes_file.", "You are #1."),
        *(
            "Dial *99# or *100#.",
            "Dial *67* first.",
            "2**3 and 4**5",
            "a*b*c",
            "the __init__ method",
        ),
        *(
            "~5 km",
            "x ** y",
            "**kwargs",
            "A [note] (here)!",
            "Wow! [Not] a link",
            "- one",
            "F#, G#",
        ),
        *(
            "*",
            "**",
            "#",
            "`",
            "[",
            "!",
            "*a",
            "_",
            "snake_case_name and other_name",
            "$5*",
            "5 > 3",
        ),
        *(
            "I <3 it",
            "F#, G#",
            "$5*",
            "5 > 3",
            "#hashtag",
            "1 # 2",
            "*nix",
            "it's `",
            "a_ b_ c",
            "2 * x* y",
        ),
    ],
)
def test_signs_of_plain_text_stay(text):
    for size in (1, 2, 5, 1000):
        assert plain(text, size) == text


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("**Bold** and *soft*.", "Bold and soft."),
        ("__Note:__ _please_ read.", "Note: please read."),
        ("***Both***, ~~gone~~", "Both, gone"),
        ("# Rooms\nTwo rooms.", "Rooms\nTwo rooms."),
        ("One\n## Two ##s", "One\nTwo ##s"),
        ("* one\n* two\n+ three", "one\ntwo\nthree"),
        ("> quoted", "quoted"),
        ("Use `make test` or ``a`b``.", "Use make test or a`b."),
        ("Use `my_*file*`.", "Use my_*file*."),
        ("```python\nx = 1\n```\nDone", "x = 1\nDone"),
        ("这是**重点**内容。", "这是重点内容。"),
        ('(*really*) "**so**"', '(really) "so"'),
        ("See [our site](https://a.b/c_d) now", "See our site now"),
        ("![A cat](cat.png)", "A cat"),
        ("*leans back. Looks at you.* Hi", "leans back. Looks at you. Hi"),
        ("**" + "very long " * 15 + "end** and *so* on", "very long " * 15 + "end and so on"),
    ],
)
def test_marks_around_words_are_removed(text, spoken):
    for size in (1, 2, 5, 1000):
        assert plain(text, size) == spoken


@given(st.text(st.sampled_from("ab1 *_`#~[]()!>\n今"), max_size=150), st.integers(1, 40))
def test_result_does_not_depend_on_the_pieces(text, size):
    assert plain(text, size) == plain(text)


def test_plain_words_are_not_held_back():
    markup = MarkupFilter()
    assert markup.push("Hello ") == "Hello "
    assert markup.push("**the") == ""
    assert markup.push("re**, ") == "there, "
