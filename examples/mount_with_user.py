"""The page inside a web app that knows its users: Ada greets each by name.

    python examples/mount_with_user.py      # then open http://localhost:8000/sign-in?name=Grace

A FastAPI app does the same: app.add_middleware(AuthenticationMiddleware, backend=SignedIn()), and
app.mount("/voice", voice).
"""

import uvicorn
from starlette.applications import Starlette
from starlette.authentication import (
    AuthCredentials,
    AuthenticationBackend,
    BaseUser,
    SimpleUser,
)
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Mount, Route

from duologue import Agent, User
from duologue.edges.webrtc import CallEdge
from duologue.hosting import create_app
from duologue.providers import local
from duologue.realtime.realtime import Realtime
from duologue.server import CallRefusedError, ServerConfig

COOKIE = "name"  # a real app signs its cookies, for example by SessionMiddleware


class SignedIn(AuthenticationBackend):
    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, BaseUser] | None:
        name = conn.cookies.get(COOKIE)
        return (AuthCredentials(["talk"]), SimpleUser(name)) if name else None


def model() -> Realtime:
    return local.Realtime("tiny")


async def handle_call(edge: CallEdge) -> None:
    """Called once for each caller; the call is over when it returns."""
    user = edge.request.user
    if not isinstance(user, SimpleUser):
        raise CallRefusedError("Please sign in first.")
    agent = Agent(
        edge=edge,
        llm=model(),
        agent_user=User("Ada", "ada"),
        person=User(user.display_name),
        instructions=f"You are Ada. You talk with {user.display_name}. Answer in one sentence.",
    )
    await edge.introduce("Ada")
    async with agent.join():
        await agent.say(f"Hello, {user.display_name}.")
        await agent.finish()


async def sign_in(request: Request) -> Response:
    answer = RedirectResponse("/voice/")
    answer.set_cookie(COOKIE, request.query_params.get("name", "Grace"), samesite="lax")
    return answer


voice = create_app(handle_call=lambda edge: handle_call(edge), config=ServerConfig(max_sessions=4))
app = Starlette(
    routes=[Route("/sign-in", sign_in), Mount("/voice", voice)],
    middleware=[Middleware(AuthenticationMiddleware, backend=SignedIn())],
)


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=8000, ws_max_size=64 * 1024)
