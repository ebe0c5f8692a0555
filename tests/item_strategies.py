"""Random items of a conversation."""

import hypothesis.strategies as st

from duologue.items import AgentItem, SystemItem, ToolCallItem, ToolResultItem, UserItem

ids = st.sampled_from(["a", "b", "c", "d"])
words = st.text(max_size=20)
items = st.one_of(
    st.builds(SystemItem, ids, words),
    st.builds(UserItem, ids, st.none() | words, st.none() | words, st.booleans()),
    st.builds(
        AgentItem, ids, words, st.sampled_from(["speaking", "heard", "cut"]), st.integers(0), words
    ),
    st.builds(ToolCallItem, ids, words, words, words),
    st.builds(ToolResultItem, ids, words, words, st.booleans()),
)
