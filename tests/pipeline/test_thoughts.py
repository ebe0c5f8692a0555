import hypothesis.strategies as st
import pytest
from hypothesis import given

from duologue.pipeline._thoughts import ThoughtFilter


def answer(text, size=1000):
    thoughts = ThoughtFilter()
    pieces = [thoughts.push(text[at : at + size]) for at in range(0, len(text), size)]
    return "".join([*pieces, thoughts.flush()])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<think>They greet me.</think>\n\nHello.", "Hello."),
        ("<THINKING>a < b</THINKING> Hello.", "Hello."),
        ("Well, <thought>which?</thought>the blue one.", "Well, the blue one."),
        ("<think>one</think>A <think>two</think>B", "A B"),
        ("<think>a <thinking> b </thinking> c</think>Yes.", "Yes."),
        ("They greet me.</think>Hello.", "They greet me.Hello."),
        ("<think>cut off by the limit", ""),
        ("[THINK]hm[/THINK]Yes.", "Yes."),
        ("◁think▷hm◁/think▷Yes.", "Yes."),
        (
            "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Hello.",
            "Hello.",
        ),
        ("<|channel>thought\nhm<channel|>Yes.", "Yes."),
        ("Is 3 <4?", "Is 3 <4?"),
        ("I <3 you <th", "I <3 you <th"),
        ("", ""),
    ],
)
def test_thoughts_are_not_part_of_a_reply(text, said):
    for size in (1, 2, 3, 7, 1000):
        assert answer(text, size) == said


@given(st.text(st.sampled_from("<>/|[] thinkTHINK.a3")), st.integers(1, 9))
def test_result_does_not_depend_on_the_pieces(text, size):
    assert answer(text, size) == answer(text)


def test_plain_words_are_not_held_back():
    thoughts = ThoughtFilter()
    assert thoughts.push("Is 3 <") == "Is 3 "
    assert thoughts.push("4?") == "<4?"
