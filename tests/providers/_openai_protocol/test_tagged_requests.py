"""Requests for responses that carry their id."""

from duologue.providers._openai_protocol.tagged_requests import TaggedRequests, join_instructions


def test_a_response_has_the_sessions_instructions_and_its_own():
    requests = TaggedRequests()
    plain = requests.reply("q", "Be kind.", None)
    assert plain == {
        "type": "response.create",
        "response": {"metadata": {"request_id": "q"}},
    }
    response = requests.reply("q", "Be kind.", "Be brief.")["response"]
    assert response["instructions"] == "Be kind.\n\nBe brief."


def test_scripted_text_is_said_outside_the_conversation_and_without_tools():
    response = TaggedRequests().say("q", "Good morning.")["response"]
    assert (response["conversation"], response["input"]) == ("none", [])
    assert (response["tools"], response["tool_choice"]) == ([], "none")
    assert response["metadata"] == {"request_id": "q"}
    assert "Good morning." in response["instructions"]


def test_a_response_is_cancelled_by_its_id():
    assert TaggedRequests().cancel("r") == {"type": "response.cancel", "response_id": "r"}


def test_empty_instructions_are_left_out():
    assert join_instructions("", "Be brief.") == "Be brief."
    assert join_instructions("Be kind.", "") == "Be kind."
