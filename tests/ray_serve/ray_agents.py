"""What the replicas of `test_ray_cluster` run: a module of its own, because they import it."""

import os
from pathlib import Path

import ray
from ray import serve

from duologue import Agent, Conversation, JsonlStore
from duologue.edges.webrtc import CallEdge
from duologue.items import UserItem
from duologue.testing import ScriptedRealtime


def make_agent(edge: CallEdge) -> Agent:
    """Return an agent that says where it is, and how many questions it remembers."""
    conversation = Conversation(JsonlStore(Path(os.environ["RAY_TEST_STORE"]) / edge.session_id))
    questions = sum(isinstance(item, UserItem) for item in conversation)
    node = ray.get_runtime_context().get_node_id()
    application = serve.get_replica_context().app_name
    text = f"PROCESS {os.getpid()} NODE {node} OF {application} AFTER {questions} QUESTIONS"
    return Agent(edge=edge, llm=ScriptedRealtime([text] * 99), conversation=conversation)
