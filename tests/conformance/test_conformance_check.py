"""Nothing of the connection that `Realtime.check` makes stays behind."""

from conformance_targets import SUBJECTS, Line, conformance

from duologue.realtime.codec import SessionSetup
from fake_edge import join_agent


@conformance
async def test_a_conversation_after_a_check_is_as_without_one(subject):
    async with SUBJECTS[subject](["Grey."], ()) as (model, _):
        await model.check(SessionSetup("Be brief."))
        assert not model.connected
        async with join_agent(model, Line(), experimental_tools=True) as agent:
            speech = await agent.simple_response("What colour is it?")
            assert speech.heard_text == "Grey."
