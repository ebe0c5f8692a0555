"""Nothing of the connection that `Realtime.check` makes is left behind."""

from conformance_targets import TARGETS, FakePerson, conformance

from duologue.realtime.codec import SessionSetup
from fake_edge import join_agent


@conformance
async def test_conversation_after_a_check_is_the_same_as_without(target):
    async with TARGETS[target](["Grey."], ()) as (model, _):
        await model.check(SessionSetup("Be brief."))
        assert not model.connected
        if target.startswith("gemini"):
            assert model._resumption.handle is None
        async with join_agent(model, FakePerson(), experimental_tools=True) as agent:
            speech = await agent.simple_response("What colour is it?")
            assert speech.heard_text == "Grey."
