"""Deploying by the REST API, over a Serve that only keeps what it is told."""

import pytest

from duologue.errors import ConfigError
from duologue.ray import DeployError, deploy
from duologue.ray.scaling import Scaling

ARGS = {"make_agent": "app:make_agent"}


class FakeServe:
    """Serve's REST API. ``ends_after`` is how many looks later a deleted application has gone."""

    def __init__(self, *, broken: str = "", ends_after: int = 3) -> None:
        self.applications: dict[str, dict] = {}
        self.options: dict = {}
        self.puts: list[list[dict]] = []
        self._broken = broken
        self._ends_after = ends_after

    def deploy_applications(self, config) -> None:
        self.options = self.options or config["http_options"]
        self.puts.append(config["applications"])
        names = {each["name"] for each in config["applications"]}
        for app in config["applications"]:
            self.applications[app["name"]] = {
                "status": "DEPLOY_FAILED" if self._broken else "RUNNING",
                "route_prefix": app["route_prefix"],
                "deployed_app_config": app,
                "message": self._broken,
                "deployments": {"Calls": {"replicas": [{"state": "RUNNING"}], "message": ""}},
            }
        for name, app in self.applications.items():
            if name not in names and app["deployed_app_config"] is not None:
                app |= {"status": "DELETING", "deployed_app_config": None, "left": self._ends_after}

    def get_serve_details(self):
        for name, app in list(self.applications.items()):
            if app["status"] == "DELETING":
                app["left"] -= 1
                if app["left"] <= 0:
                    del self.applications[name]
        return {"applications": self.applications, "http_options": self.options}


def put(serve: FakeServe, **options):
    lines: list[str] = []
    deployed = deploy(serve, ARGS, report=lines.append, sleep=lambda s: None, **options)
    return deployed, lines


def routes(put: list[dict]) -> dict[str, str | None]:
    return {app["name"]: app["route_prefix"] for app in put}


def test_the_first_version_starts_at_the_route():
    serve = FakeServe()
    deployed, _ = put(serve, host="127.0.0.1", port=8123)
    assert (deployed.name, deployed.replaced) == ("duologue-1", ())
    assert [routes(each) for each in serve.puts] == [{"duologue-1": "/"}]
    assert serve.options == {"host": "127.0.0.1", "port": 8123}
    assert serve.puts[0][0]["args"]["config"] == {"host": "127.0.0.1", "port": 8123}


def test_the_next_version_starts_beside_the_old_one_which_drains_and_goes():
    serve = FakeServe()
    put(serve)
    serve.puts.clear()
    deployed, lines = put(serve, drain_s=77)
    assert (deployed.name, deployed.replaced) == ("duologue-2", ("duologue-1",))
    beside, switched, removed = serve.puts
    assert routes(beside) == {"duologue-1": "/", "duologue-2": "/_starting/duologue-2"}
    assert routes(switched) == {"duologue-1": None, "duologue-2": "/"}
    old = next(app for app in switched if app["name"] == "duologue-1")
    assert old["deployments"] == [{"name": "Calls", "user_config": {"drain_s": 77}}]
    assert routes(removed) == {"duologue-2": "/"}
    assert lines == [
        "duologue-2 starts",
        "duologue-2 takes the calls at /",
        "duologue-1: 1 replica with calls",
    ]


def test_a_version_keeps_its_arguments_while_routes_move():
    """Serve starts the replicas of an application again if its arguments change."""
    serve = FakeServe()
    put(serve)
    before = serve.puts[0][0]
    serve.puts.clear()
    put(serve, host="0.0.0.0", port=9)  # noqa: S104 - Serve keeps the address it has
    for each in serve.puts[:2]:
        kept = next(app for app in each if app["name"] == "duologue-1")
        for field in ("import_path", "args", "runtime_env"):
            assert kept[field] == before[field]
    assert serve.puts[0][1]["args"]["config"]["host"] == "127.0.0.1"


def test_other_applications_stay_as_they_are():
    serve = FakeServe()
    other = {"name": "other", "route_prefix": "/other", "import_path": "their:app", "args": {}}
    serve.deploy_applications({"http_options": {}, "applications": [other]})
    put(serve)
    put(serve)
    assert all(other in each for each in serve.puts)


def test_a_version_that_does_not_start_is_removed_and_the_old_one_stays():
    serve = FakeServe()
    put(serve)
    serve._broken = "Traceback\n  File x\nduologue.errors.ConfigError: no module named app\n\nbye"
    with pytest.raises(DeployError, match=r"duologue-2 did not start: .*no module named app"):
        put(serve)
    assert routes(serve.puts[-1]) == {"duologue-1": "/"}


def test_a_version_that_finds_no_room_in_time_is_removed():
    serve = FakeServe()
    real = serve.get_serve_details
    times = iter(range(100))

    def never_runs():
        details = real()
        for app in details["applications"].values():
            app["status"] = "DEPLOYING"
        return details

    serve.get_serve_details = never_runs
    with pytest.raises(DeployError, match="in time: has the cluster room"):
        put(serve, start_s=5, clock=lambda: next(times))
    assert serve.puts[-1] == []


def test_a_route_of_another_application_is_not_taken():
    serve = FakeServe()
    other = {"name": "other", "route_prefix": "/", "import_path": "their:app", "args": {}}
    serve.deploy_applications({"http_options": {}, "applications": [other]})
    with pytest.raises(ConfigError, match="'other' has the route /"):
        put(serve)


def test_returns_at_once_without_waiting_for_the_old_version():
    serve = FakeServe(ends_after=10**9)
    put(serve)
    assert put(serve, wait=False)[0].name == "duologue-2"


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"max_sessions": 0}, "max_sessions must be above 0"),
        ({"max_sessions": 2, "spare_sessions": 2}, "spare_sessions must be from 0 to 1"),
        ({"min_replicas": 3, "max_replicas": 2}, "min_replicas must be above 0 and at most"),
        ({"max_call_s": 0}, "max_call_s must be above 0"),
        ({"warn_s": -1}, "warn_s must be 0 or more"),
    ],
)
def test_scaling_that_can_not_work_is_an_error(settings, error):
    with pytest.raises(ConfigError, match=error):
        Scaling(**settings)
