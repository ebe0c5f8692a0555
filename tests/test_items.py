import json

import pytest
from hypothesis import given

from duologue.items import item_from_dict, item_to_dict
from item_strategies import items


@given(items)
def test_item_converts_to_a_dictionary_and_back(item):
    values = json.loads(json.dumps(item_to_dict(item)))
    assert item_from_dict({**values, "newer": 1}) == item


def test_invalid_item_dictionary_raises():
    with pytest.raises(KeyError):
        item_from_dict({"kind": "PictureItem", "id": "p"})
    with pytest.raises(KeyError):
        item_from_dict({})
    with pytest.raises(ValueError, match="text of a UserItem can't be 5"):
        item_from_dict({"kind": "UserItem", "id": "u", "text": 5})
    with pytest.raises(ValueError, match=r"a UserItem needs more: .*text"):
        item_from_dict({"kind": "UserItem", "id": "u"})
