import pytest

from duologue._bounded_dict import BoundedDict


def test_oldest_entry_is_dropped():
    dropped = []
    entries = BoundedDict(2, on_drop=lambda key, value: dropped.append((key, value)))
    entries.update({"a": 1, "b": 2, "c": 3})
    assert list(entries.items()) == [("b", 2), ("c", 3)]
    assert dropped == [("a", 1)]
    assert "a" not in entries
    assert repr(entries) == "BoundedDict({'b': 2, 'c': 3})"


def test_setting_a_key_again_keeps_its_age():
    entries = BoundedDict(2)
    entries["a"] = entries["b"] = 1
    entries["a"] = 2
    assert entries.setdefault("c", 3) == 3
    assert dict(entries) == {"b": 1, "c": 3}
    assert list(reversed(entries)) == ["c", "b"]


def test_removed_entries_do_not_count_and_are_not_dropped():
    dropped = []
    entries = BoundedDict(2, on_drop=lambda key, _: dropped.append(key))
    entries["a"] = 1
    del entries["a"]
    entries["b"] = entries["c"] = 1
    assert entries.pop("b") == 1
    assert entries.pop("b", None) is None
    entries.clear()
    assert not entries
    assert not dropped
    with pytest.raises(KeyError):
        entries["c"]
