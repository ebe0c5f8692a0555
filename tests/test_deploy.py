"""The files of deploy/: the chart, the manifests made from it, and the Containerfile."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from duologue.cli.serve import serve
from duologue.server import ServerConfig

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "chart"
MANIFESTS = DEPLOY / "kubernetes"
VERSION = "1.30"
"""Of Kubernetes: the oldest that the chart admits."""

VALUES = {
    "deployment": {"mode": "deployment"},
    "autoscaled": {
        "deployment": {"autoscaling": {"enabled": True}},
        "env": {"DUOLOGUE_STORE": "redis://redis:6379/0"},
        "trustedProxies": ["10.0.0.0/8"],
        "args": ["--turn", "turn:turn.example.org:3478"],
    },
    "bare": {"app": "", "publicUrl": "", "hostNetwork": False, "udpPorts": ""},
    "rayservice": {"mode": "rayservice", "trustedProxies": ["10.0.0.0/8"]},
}


def render(values):
    helm = pytest.importorskip("helm_python", reason="needs the group deploy: uv sync")
    rendered = helm.Chart.load(str(CHART)).render(values, name="duologue")
    text = "---\n".join(one.strip() + "\n" for one in rendered.values() if one.strip())
    return text, [one for one in yaml.safe_load_all(text) if one]


def by_kind(documents):
    return {one["kind"]: one for one in documents}


def test_the_chart_is_accepted_by_helms_lint():
    helm = pytest.importorskip("helm_python", reason="needs the group deploy: uv sync")
    for values in VALUES.values():
        found = helm.lint(str(CHART), values)
        assert found["errors"] == []
        assert [one["error"] for one in found["messages"]] == ["icon is recommended"]


@pytest.mark.parametrize(
    "values",
    [
        {"mode": "pods"},
        {"maxSessions": 0},
        {"udpPorts": "50000"},
        {"app": "make_agent"},
        {"replicas": 3},
    ],
)
def test_values_that_can_not_work_are_refused(values):
    helm = pytest.importorskip("helm_python", reason="needs the group deploy: uv sync")
    with pytest.raises(helm.HelmError):
        helm.Chart.load(str(CHART)).render(values)


def test_the_manifests_are_those_of_the_chart():
    pytest.importorskip("helm_python", reason="needs the group deploy: uv sync")
    command = [sys.executable, ROOT / "scripts/manifests.py", "--check"]
    subprocess.run(command, check=True)


def pods(documents):
    """Yield the pods that the documents describe."""
    for one in documents:
        match one:
            case {"kind": "Deployment", "spec": {"template": template}}:
                yield template
            case {"kind": "RayService", "spec": {"rayClusterConfig": cluster}}:
                yield cluster["headGroupSpec"]["template"]
                yield from (group["template"] for group in cluster["workerGroupSpecs"])


@pytest.mark.parametrize("name", VALUES)
def test_what_is_rendered_is_accepted_by_the_schemas_of_kubernetes(name):
    validate = pytest.importorskip("kubernetes_validate", reason="needs the group deploy: uv sync")
    text, documents = render(VALUES[name])
    known = [one for one in documents if one["kind"] != "RayService"]
    known += [
        {"apiVersion": "v1", "kind": "Pod", **pod, "metadata": {"name": "a"}}
        for pod in pods(documents)
    ]
    for one in known:
        validate.validate(one, VERSION, strict=True)
    lint = subprocess.run(
        [sys.executable, "-m", "yamllint", "-s", "-c", DEPLOY / ".yamllint", "-"],
        input=text,
        text=True,
        capture_output=True,
        check=False,
    )
    assert lint.returncode == 0, lint.stdout + lint.stderr


@pytest.mark.parametrize("name", VALUES)
def test_pods_have_no_rights_and_outlive_their_calls(name):
    _, documents = render(VALUES[name])
    for pod in pods(documents):
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        (container,) = spec["containers"]
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert "requests" in container["resources"]
        if container["name"] != "ray-head":
            assert spec["terminationGracePeriodSeconds"] >= 3600 + 60


@pytest.mark.parametrize("name", ["deployment", "autoscaled", "bare"])
def test_the_options_of_the_container_are_those_of_the_command(name):
    _, documents = render(VALUES[name])
    args = by_kind(documents)["Deployment"]["spec"]["template"]["spec"]["containers"][0]["args"]
    assert args[0] == "serve"
    parsed = serve.make_context("serve", args[1:], resilient_parsing=True).params
    assert parsed["host"] == "0.0.0.0"  # noqa: S104 - the pod's own network
    assert (parsed["workers"], parsed["max_sessions"], parsed["drain"]) == (2, 16, 3600)
    assert parsed["metrics"] is True
    assert parsed["app"] == (None if name == "bare" else "app:make_agent")
    # Its requirement of a token is met by the Secret.
    ServerConfig(
        host=parsed["host"],
        token="a token of the Secret",  # noqa: S106
        public_url=parsed["public_url"],
        udp_ports=parsed["udp_ports"],
        trusted_proxies=parsed["trust_proxy"],
    )


def test_the_application_of_ray_is_accepted_by_its_schema_and_by_ours():
    schema = pytest.importorskip("ray.serve.schema", reason="needs the extra ray")
    ray = pytest.importorskip("duologue.ray", reason="needs the extra ray")
    _, documents = render(VALUES["rayservice"])
    spec = by_kind(documents)["RayService"]["spec"]
    config = yaml.safe_load(spec["serveConfigV2"])
    (application,) = schema.ServeDeploySchema.model_validate(config).applications
    assert application.import_path == "duologue.ray:build"
    args = application.args
    scaling = ray.Scaling(**args["scaling"])
    assert spec["rayClusterDeletionDelaySeconds"] > scaling.max_call_s + 60
    # The image has the function, and this machine has not.
    ray.build({**args, "make_agent": "builtins:print"})


def test_the_containerfile_is_accepted_by_hadolint():
    name = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if name is None:
        pytest.skip("needs the group deploy: uv sync")
    done = subprocess.run([name, DEPLOY / "Containerfile"], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (0, b"")


def test_the_program_of_the_image_is_pid_1_without_root():
    lines = (DEPLOY / "Containerfile").read_text().splitlines()
    assert 'ENTRYPOINT ["duologue"]' in lines
    assert "STOPSIGNAL SIGTERM" in lines
    user = [line for line in lines if line.startswith("USER")]
    assert user == ["USER 10001"]
    manifest = (MANIFESTS / "deployment.yaml").read_text()
    assert "runAsUser: 10001" in manifest


def test_the_image_is_built_on_debian_and_runs_the_program():
    base = os.environ.get("DUOLOGUE_BASE_IMAGE")
    if base is None:
        pytest.skip("takes a minute: set DUOLOGUE_BASE_IMAGE to an image of Debian 13")
    if shutil.which("buildah") is None:
        pytest.skip("buildah is not installed")

    def buildah(*args, **options):
        return subprocess.run(["buildah", *args], check=True, text=True, **options)

    options = ["--isolation", "chroot", "--format", "docker", "--build-arg", f"BASE={base}"]
    options += ["--build-arg", "EXTRAS=server,redis,prometheus", "-t", "duologue-test"]
    buildah("bud", *options, "-f", DEPLOY / "Containerfile", ROOT)
    container = buildah("from", "duologue-test", stdout=subprocess.PIPE).stdout.strip()
    try:
        run = ["run", "--isolation", "chroot", container, "--"]
        version = buildah(*run, "duologue", "--version", stdout=subprocess.PIPE).stdout
        assert version.startswith("duologue")
        assert buildah(*run, "id", "-u", stdout=subprocess.PIPE).stdout.strip() == "10001"
        inspected = buildah("inspect", "--type", "image", "duologue-test", stdout=subprocess.PIPE)
        config = json.loads(inspected.stdout)["Docker"]["config"]
        assert config["Entrypoint"] == ["duologue"]
        assert config["StopSignal"] == "SIGTERM"
        assert config["User"] == "10001"
        assert "Healthcheck" in config
    finally:
        buildah("rm", container, stdout=subprocess.DEVNULL)
        buildah("rmi", "duologue-test", stdout=subprocess.DEVNULL)
