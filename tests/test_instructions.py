import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duologue.instructions import MAX_FILE, load_instructions
from duologue.realtime.errors import ConfigError


@pytest.fixture
def root(tmp_path):
    base = tmp_path / "work"
    (base / "docs").mkdir(parents=True)
    (base / "notes.md").write_text("We close at nine.\n", encoding="utf-8")
    (base / "docs" / "two.txt").write_text("\ufeffMail @notes.md", encoding="utf-8")
    (base / "big.md").write_text("x" * (MAX_FILE + 1))
    (base / "raw.md").write_bytes(b"\xff\xfe\xfa")
    (base / "folder.md").mkdir()
    (tmp_path / "secret.md").write_text("secret")
    os.symlink(tmp_path / "secret.md", base / "link.md")
    os.symlink(base / "notes.md", base / "inside.md")
    os.symlink("loop.md", base / "loop.md")
    return base


@pytest.mark.parametrize(
    ("text", "loaded"),
    [
        ("Be kind. @notes.md", "Be kind. We close at nine."),
        ("@notes.md", "We close at nine."),
        ("See @notes.md.", "See We close at nine.."),
        ("(@notes.md, @inside.md)", "(We close at nine., We close at nine.)"),
        ("@docs/two.txt", "Mail @notes.md"),
        ("@./notes.md", "We close at nine."),
        ("Write to a@b.c or jo.e-x@notes.md", "Write to a@b.c or jo.e-x@notes.md"),
        ("Call @anna, cc @bob.", "Call @anna, cc @bob."),
        ("an at sign @ alone", "an at sign @ alone"),
    ],
)
def test_files_take_the_place_of_their_mention(root, text, loaded):
    assert load_instructions(text, root) == loaded


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("@missing.md", "mention @missing.md, and there is no such file"),
        ("@../secret.md", "@../secret.md: use a path inside"),
        ("@docs/../notes.md", "use a path inside"),
        ("@/etc/hosts.txt", "use a path inside"),
        ("@~/notes.md", "use a path inside"),
        ("@link.md", "@link.md: it leads outside"),
        ("@loop.md", "@loop.md"),
        ("@folder.md", "it is not a file"),
        ("@notes.md/x.md", "@notes.md/x.md"),
        ("@big.md", "over 65536 bytes"),
        ("@raw.md", "not UTF-8 text"),
        ("@notes.md " * 20000, "at most 262144"),
    ],
)
def test_what_can_not_be_pulled_in_is_one_clear_line(root, text, message):
    with pytest.raises(ConfigError, match=message) as caught:
        load_instructions(text, root)
    assert "\n" not in str(caught.value)


def test_the_default_root_is_the_working_directory(root, monkeypatch):
    monkeypatch.chdir(root / "docs")
    assert load_instructions("@two.txt") == "Mail @notes.md"
    with pytest.raises(ConfigError):
        load_instructions("@notes.md")


@given(st.text().filter(lambda text: "@" not in text))
def test_text_without_mentions_is_left_alone(text):
    assert load_instructions(text) == text
