import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duologue.agent.instructions import MAX_FILE_BYTES, escape, load_instructions
from duologue.errors import ConfigError


@pytest.fixture
def root(tmp_path):
    base = tmp_path / "work"
    (base / "docs").mkdir(parents=True)
    (base / "notes.md").write_text("We close at nine.\n", encoding="utf-8")
    (base / "docs" / "two.txt").write_text("\ufeffMail @notes.md", encoding="utf-8")
    (base / "big.md").write_text("x" * (MAX_FILE_BYTES + 1))
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
        ("A coffee is two for one @4.50 today.", "A coffee is two for one @4.50 today."),
        ("Our file is @@notes.md.", "Our file is @notes.md."),
        ("@@missing.md", "@missing.md"),
        ("a@@b.c @@anna", "a@@b.c @@anna"),
    ],
)
def test_files_replace_their_mentions(root, text, loaded):
    assert load_instructions(text, root) == loaded


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("@missing.md", "mention @missing.md, and there is no such file"),
        ("@../secret.md", "@../secret.md: use a path inside"),
        ("@docs/../notes.md", "use a path inside"),
        ("@/etc/hosts.txt", "use a path inside"),
        ("@~/notes.md", "use a path inside"),
        ("@acme.io", "write @@acme.io if it is not a file"),
        ("@link.md", "@link.md: it leads outside"),
        ("@loop.md", "@loop.md"),
        ("@folder.md", "it is not a file"),
        ("@notes.md/x.md", "@notes.md/x.md"),
        ("@big.md", "over 65536 bytes"),
        ("@raw.md", "not UTF-8 text"),
        ("@notes.md " * 20000, "at most 262144"),
    ],
)
def test_file_that_cannot_be_included_raises_one_clear_line(root, text, message):
    with pytest.raises(ConfigError, match=message) as caught:
        load_instructions(text, root)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "You speak for the shop. Our handle is @acme.io, people know it.",
        "Questions go to @john.doe.",
        "A coffee is two for one @4.50 today.",
        "Use @property, @app.route and @pytest.fixture.",
    ],
)
def test_without_a_root_at_signs_are_just_text(root, monkeypatch, text):
    monkeypatch.chdir(root)
    (root / "acme.io").write_text("secret")
    assert load_instructions(text) == text


def test_without_a_root_a_mentioned_file_raises_and_is_not_read(root, monkeypatch):
    monkeypatch.chdir(root)
    for name in ("notes.md", "missing.md", "../secret.md", "docs/two.TXT"):
        with pytest.raises(ConfigError, match=re.escape(f"@{name}: pass root=")):
            load_instructions(f"Know this: @{name}")
        assert load_instructions(f"Know this: @@{name}") == f"Know this: @{name}"


def test_instructions_file_includes_files_of_its_folder(root, tmp_path):
    path = root / "agent.md"
    path.write_text("\ufeffBe kind.\n@notes.md\n@docs/two.txt", encoding="utf-8")
    assert load_instructions(path) == "Be kind.\nWe close at nine.\nMail @notes.md"
    path.write_text("@two.txt")
    assert load_instructions(path, root / "docs") == "Mail @notes.md"
    path.write_text("@../secret.md")
    with pytest.raises(ConfigError, match="use a path inside"):
        load_instructions(path)
    wrong = {"gone.md": "No such file", "raw.md": "not UTF-8", "docs": "not a file"}
    for name, message in wrong.items():
        with pytest.raises(ConfigError, match=rf"instructions .*{name}: .*{message}"):
            load_instructions(root / name)


def test_instructions_must_be_text_or_a_path():
    with pytest.raises(ConfigError, match="a text or a Path, not list"):
        load_instructions(["Be kind."])


@given(st.text(st.sampled_from("@@ax./-m d,1"), max_size=30))
def test_escaped_text_includes_nothing(text):
    assert load_instructions(escape(text), Path("nowhere")) == text


@given(st.text().filter(lambda text: "@" not in text))
def test_text_without_mentions_is_unchanged(text):
    assert load_instructions(text) == text
