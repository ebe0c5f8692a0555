from __future__ import annotations

from collections.abc import Sequence

from hypothesis import example, given
from hypothesis import strategies as st

from duologue.providers.local._draft import MAX_RETRY_TOKENS, Draft

END = 0
WORDS = st.lists(st.integers(1, 5), max_size=20)


def decode(text: Sequence[int], guess: Sequence[int]) -> tuple[list[int], int]:
    """Decode with a decoder that writes ``text``; return the tokens and its number of runs.

    After tokens that are not those of the text it chooses something else.
    """
    draft = Draft(guess)
    decided: list[int] = []
    runs = 0
    while not decided or decided[-1] != END:
        offered = draft.offer()
        runs += 1
        choices = []
        for at in range(len(offered) + 1):
            before = [*decided, *offered[:at]]
            agrees = before == list(text[: len(before)])
            choices.append([*text, END][len(before)] if agrees else 6)
        decided += draft.settle(choices)
    return decided[:-1], runs


@given(WORDS, WORDS)
@example([1, 2, 3], [1, 2, 3])
@example([1, 2, 3], [])
def test_a_guess_never_changes_the_text(text: list[int], guess: list[int]) -> None:
    decided, runs = decode(text, guess)
    assert decided == text
    assert runs <= len(text) + 1


@given(WORDS, WORDS)
def test_a_guess_that_the_text_continues_takes_one_run(text: list[int], more: list[int]) -> None:
    _, runs = decode([*text, *more], text)
    assert runs == 1 + len(more)


def test_without_a_guess_each_token_takes_a_run() -> None:
    assert decode([1, 2, 3], []) == ([1, 2, 3], 4)


def test_a_changed_token_takes_one_run_more() -> None:
    assert decode([1, 2, 9, 4, 5, 7], [1, 2, 3, 4, 5, 7]) == ([1, 2, 9, 4, 5, 7], 2)


def test_a_guess_continues_behind_tokens_that_are_gone() -> None:
    assert decode([1, 2, 5, 7], [1, 2, 3, 4, 5, 7]) == ([1, 2, 5, 7], 2)


def test_a_guess_continues_behind_a_token_that_is_new() -> None:
    # The new token is taken for a changed one, until the guess fails again.
    assert decode([1, 9, 2, 3, 4, 5], [1, 2, 3, 4, 5]) == ([1, 9, 2, 3, 4, 5], 3)


def test_only_a_few_tokens_are_offered_after_a_difference() -> None:
    draft = Draft(range(1, 30))
    assert len(draft.offer()) == 29
    assert draft.settle([99] * 30) == [99]
    assert draft.offer() == list(range(2, 2 + MAX_RETRY_TOKENS))
