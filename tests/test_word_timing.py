import pytest

from duologue._word_timing import has_letters, needs_space, prefix_within, weight


@pytest.mark.parametrize(
    ("text", "budget", "said"),
    [
        ("one two three", 7, "one two"),
        ("one two three", 6.9, "one"),
        ("one two three", 2, ""),
        ("one two three", 13, "one two three"),
        ("नमस्ते दुनिया", 8, "नमस्ते"),
        ("नमस्ते दुनिया", 5, ""),
        ("今天天气很好", 6, "今天"),
        ("今天，天气", 7, "今天，"),
        ("今日はコンピューターを", 18, "今日はコンピ"),
        ("สวัสดีครับ", 2, "ส"),
        ("สวัสดีครับ", 3, "สวั"),
        ("สวัสดีครับ", 4, "สวัส"),
        ("iPhone很好用", 3, ""),
        ("iPhone很好用", 9, "iPhone很"),
        ("use iPhone很好", 7, "use"),
        ("안녕하세요 여러분", 15, "안녕하세요"),
        ("안녕하세요 여러분", 14, ""),
        ("好👨‍👩‍👧好", 4, "好"),
    ],
)
def test_text_is_cut_where_its_script_allows(text, budget, said):
    assert prefix_within(text, budget) == said


def test_a_character_that_is_a_syllable_takes_longer_than_a_letter():
    assert weight("abc") == 3
    assert weight("今天") == 6
    assert weight("今天 abc") == 10
    assert weight("สวัสดี") == 6


def test_a_space_is_missing_only_where_scripts_have_spaces():
    assert needs_space("one", "two")
    assert needs_space("दो", "तीन")
    assert not needs_space("one ", "two")
    assert not needs_space("one", " two")
    assert not needs_space("", "two")
    assert not needs_space("今天", "two")
    assert not needs_space("one", "今天")


def test_letters_and_digits_can_be_said():
    assert has_letters("是")
    assert has_letters("7")
    assert not has_letters(" 😀, ...")
