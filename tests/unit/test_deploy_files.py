"""What deploys workers: valid by the tools of each format, and true to the code that it deploys."""

import copy
import re
import shutil
import subprocess
import sys
import tomllib
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from tests.support.cli import CommandLine
from tests.support.servers import unavailable
from tests.unit.operator_kinds import KINDS, check_custom

from waypost import Topics
from waypost_worker.config.settings import Settings
from waypost_worker.console.access import allowed_hosts
from waypost_worker.console.app import STATIC
from waypost_worker.console.gates import check_settings
from waypost_worker.kafka.topics import topic_settings
from waypost_worker.telemetry.health import Health
from waypost_worker.telemetry.metrics import Metrics
from waypost_worker.web.probes import probes

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
VERSION = "1.33"
#: A placeholder in a domain that nobody can have. Without a registry's name, some engines would ask one of theirs.
IMAGE = "registry.waypost.example/waypost"
BESIDE = Path(sys.executable).parent


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*map(str, command)], check=False, capture_output=True, text=True, timeout=60, cwd=ROOT
    )


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


def manifests() -> list[Path]:
    return sorted(path for path in KUBERNETES.rglob("*.yaml") if path.name != "kustomization.yaml")


def everything() -> Iterator[dict[str, Any]]:
    for path in manifests():
        yield from documents(path)


def found(kind: str) -> dict[str, dict[str, Any]]:
    return {one["metadata"]["name"]: one for one in everything() if one["kind"] == kind}


def pods() -> list[dict[str, Any]]:
    specs = [one["spec"] for one in everything() if one["kind"] in ("Deployment", "Job", "CronJob")]
    specs = [spec["jobTemplate"]["spec"] if "jobTemplate" in spec else spec for spec in specs]
    return [spec["template"]["spec"] for spec in specs]


def check_object(one: dict[str, Any]) -> None:
    if "." in one["apiVersion"].partition("/")[0].removesuffix(".k8s.io"):
        check_custom(one)
    else:
        kubernetes_validate.validate(one, VERSION, strict=True)


def test_hadolint_accepts_the_container_file(tmp_path: Path) -> None:
    done = run(BESIDE / "hadolint", DEPLOY / "Containerfile")
    assert done.returncode == 0, done.stdout
    careless = tmp_path / "Containerfile"
    careless.write_text("FROM python:latest\nRUN pip install waypost\n")
    assert run(BESIDE / "hadolint", careless).returncode != 0


def test_the_compose_file_is_one() -> None:
    done = run(
        BESIDE / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", DEPLOY / "compose.yaml"
    )
    assert done.returncode == 0, done.stdout
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    assert services["kafka"]["image"].startswith("docker.io/apache/kafka:4.")
    assert services["postgres"]["image"].startswith("docker.io/library/postgres:18")
    for name, service in services.items():
        assert set(service.get("depends_on", {})) <= set(services), name


@pytest.mark.parametrize("path", manifests(), ids=lambda path: str(path.relative_to(KUBERNETES)))
def test_a_manifest_is_valid(path: Path) -> None:
    for one in documents(path):
        check_object(one)


def test_the_check_of_manifests_sees_a_misspelt_field() -> None:
    (deployment,) = documents(KUBERNETES / "base/deployment.yaml")
    deployment["spec"]["template"]["spec"]["terminationGracePeriod"] = 40
    with pytest.raises(kubernetes_validate.ValidationError):
        check_object(deployment)


def _changed(one: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    made = copy.deepcopy(one)
    *way, last = [int(step) if step.isdigit() else step for step in path.split("/")]
    place: Any = made
    for step in way:
        place = place[step]
    place[last] = value
    return made


@pytest.mark.parametrize(
    ("kind", "name", "path", "value"),
    [
        ("KafkaTopic", "waypost.commands", "spec/partition", 12),
        ("KafkaTopic", "waypost.commands", "spec/partitions", "12"),
        ("KafkaTopic", "waypost.commands", "spec/config/retention.ms", -1),
        ("KafkaUser", "waypost-agent", "spec/authorization/acls/0/operations/0", "write"),
        ("KafkaUser", "waypost-agent", "spec/authorization/acls/0/operation", "Write"),
        ("KafkaUser", "waypost-agent", "spec/authentication/type", "mtls"),
        ("ScaledObject", "waypost-worker", "spec/maxReplicas", 12),
        ("ScaledObject", "waypost-worker", "spec/triggers/0/metadata/lagThreshold", 5000),
        ("ScaledObject", "waypost-worker", "spec/triggers/0/metadata/bootstrap", "kafka:9092"),
        ("TriggerAuthentication", "waypost-kafka", "spec/secretTargetRef/0/secret", "x"),
        ("PrometheusRule", "waypost", "spec/groups/0/rules/0/for", "a minute"),
        ("ServiceMonitor", "waypost-worker", "spec/endpoints/0/intervall", "15s"),
        ("ServiceMonitor", "waypost-worker", "apiVersion", "monitoring.coreos.com/v2"),
    ],
)
def test_the_check_of_operators_kinds_sees_what_is_wrong(kind: str, name: str, path: str, value: Any) -> None:
    check_object(found(kind)[name])
    with pytest.raises((jsonschema.ValidationError, KeyError)):
        check_object(_changed(found(kind)[name], path, value))


def test_every_kind_of_an_operator_is_used() -> None:
    assert set(KINDS) <= {(one["apiVersion"], one["kind"]) for one in everything()}


def test_every_manifest_belongs_to_a_kustomization_and_every_reference_leads_somewhere() -> None:
    used = set()
    for file in KUBERNETES.rglob("kustomization.yaml"):
        said = yaml.safe_load(file.read_text())
        for name in [*said.get("resources", ()), *said.get("components", ())]:
            target = (file.parent / name).resolve()
            assert target.exists(), f"{file}: {name}"
            assert target.is_file() or (target / "kustomization.yaml").exists(), f"{file}: {name}"
            used.add(target)
    assert set(manifests()) <= used


@pytest.mark.parametrize("overlay", ["autoscaled", "static"])
def test_an_overlay_renders_to_valid_objects(overlay: str) -> None:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not here, which renders kustomizations")
    done = run(kubectl, "kustomize", KUBERNETES / "overlays" / overlay)
    assert done.returncode == 0, done.stderr
    rendered = list(yaml.safe_load_all(done.stdout))
    for one in rendered:
        check_object(one)
    workers = [one for one in rendered if one["kind"] in ("Deployment", "StatefulSet")]
    assert [one["kind"] for one in workers] == [
        {"autoscaled": "Deployment", "static": "StatefulSet"}[overlay]
    ]
    (container,) = workers[0]["spec"]["template"]["spec"]["containers"]
    assert container["image"] == f"{IMAGE}:{version()}"
    names = {variable["name"] for variable in container.get("env", ())}
    assert ("WAYPOST_GROUP_INSTANCE_ID" in names) == (overlay == "static")
    assert ("replicas" in workers[0]["spec"]) == (overlay == "static")
    # What the settings name as files is what the volumes hold.
    (settings,) = (one["data"] for one in rendered if one["kind"] == "ConfigMap")
    volumes = {
        volume["name"]: volume["secret"] for volume in workers[0]["spec"]["template"]["spec"]["volumes"]
    }
    mounted = {
        f"{mount['mountPath']}/{item['path']}"
        for mount in container["volumeMounts"]
        for item in volumes[mount["name"]]["items"]
    }
    assert mounted == {value for name, value in settings.items() if name.endswith("_FILE")}
    assert settings["WAYPOST_KAFKA_SECURITY_PROTOCOL"] == "SSL"


@pytest.mark.parametrize("name", ["plain", "try"])
def test_an_overlay_without_operators_has_kinds_of_kubernetes_alone(name: str, tmp_path: Path) -> None:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        unavailable("kubectl is not here, which renders kustomizations")
    done = run(kubectl, "kustomize", KUBERNETES / "overlays" / name)
    assert done.returncode == 0, done.stderr
    rendered = list(yaml.safe_load_all(done.stdout))
    for one in rendered:
        kubernetes_validate.validate(one, VERSION, strict=True)
    made = {f"{one['kind']} {one['metadata']['name']}": one for one in rendered}
    assert {"Deployment waypost-worker", "Job waypost-topics", "Job waypost-migrate"} <= set(made)
    (settings,) = (one["data"] for one in rendered if one["kind"] == "ConfigMap")
    if name == "plain":
        assert settings["WAYPOST_BOOTSTRAP_SERVERS"] == "kafka.example.org:9092"
        return
    # What the settings name is there: a service with pods behind it, and a login that Postgres is given, too.
    host, _, port = settings["WAYPOST_BOOTSTRAP_SERVERS"].partition(":")
    ports = {"Service waypost-postgres": 5432, f"Service {host}": int(port)}
    for service, number in ports.items():
        spec = made[service]["spec"]
        (server,) = (
            one for one in rendered if one["kind"] == "StatefulSet" and selects(spec["selector"], one)
        )
        assert spec["ports"][0]["port"] == number
        (container,) = server["spec"]["template"]["spec"]["containers"]
        assert container["ports"] == [{"name": spec["ports"][0]["targetPort"], "containerPort": number}]
        assert re.search(r"^docker\.io/[\w/]+:[\d.]+@sha256:[0-9a-f]{64}$", container["image"])
        if number == 9092:
            variables = {one["name"]: one["value"] for one in container["env"]}
            assert f"PLAINTEXT://{host}:{port}" in variables["KAFKA_ADVERTISED_LISTENERS"].split(",")
    secrets = {
        one["metadata"]["name"]: {key: b64decode(value).decode() for key, value in one["data"].items()}
        for one in rendered
        if one["kind"] == "Secret"
    }
    postgres, access = (
        next(secret for name, secret in secrets.items() if name.startswith(prefix))
        for prefix in ("waypost-postgres-", "waypost-console-access-")
    )
    assert postgres["dsn"] == f"postgresql://waypost:{postgres['password']}@waypost-postgres/waypost"
    assert access["dsn"] == postgres["dsn"]
    check_settings(Settings(console_auth="token", console_token=access["token"], postgres_dsn=access["dsn"]))


def selects(selector: dict[str, str], workload: dict[str, Any]) -> bool:
    labels: dict[str, str] = workload["spec"]["template"]["metadata"]["labels"]
    return selector.items() <= labels.items()


@pytest.mark.parametrize("name", ["kafka", "postgres"])
def test_the_servers_to_try_it_are_those_of_the_compose_file(name: str) -> None:
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    server = next(one for one in documents(KUBERNETES / f"components/servers/{name}.yaml"))
    (container,) = server["spec"]["template"]["spec"]["containers"]
    assert container["image"] == services[name]["image"]
    given = {one["name"]: one["value"] for one in container["env"]}
    addresses = {"KAFKA_CONTROLLER_QUORUM_VOTERS", "KAFKA_LOG_DIRS", "KAFKA_INTER_BROKER_LISTENER_NAME"}
    addresses |= {key for key in given if "LISTENER" in key} | {"POSTGRES_PASSWORD", "POSTGRES_PASSWORD_FILE"}
    there = services[name]["environment"]
    assert {key: value for key, value in given.items() if key not in addresses} == {
        key: value for key, value in there.items() if key not in addresses
    }


def version() -> str:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return str(project["version"])


def test_variables_in_deployment_files_are_settings() -> None:
    known = {f"WAYPOST_{name}".upper() for name in Settings.model_fields}
    files = [DEPLOY / "Containerfile", DEPLOY / "compose.yaml", *KUBERNETES.rglob("*.yaml")]
    named = {name for file in files for name in re.findall(r"\bWAYPOST_[A-Z_]+", file.read_text())}
    assert named <= known
    assert {"WAYPOST_BOOTSTRAP_SERVERS", "WAYPOST_POSTGRES_DSN_FILE", "WAYPOST_HTTP_PORT"} <= named


def test_pods_read_their_secrets_from_files_that_are_mounted() -> None:
    assert not [path for path in manifests() if "secretKeyRef" in path.read_text()]
    settings = yaml.safe_load((KUBERNETES / "base/kustomization.yaml").read_text())["configMapGenerator"][0]
    common = dict(literal.split("=", 1) for literal in settings["literals"])
    for pod in pods():
        volumes = {volume["name"]: volume["secret"] for volume in pod["volumes"] if "secret" in volume}
        for container in [*pod["containers"], *pod.get("initContainers", ())]:
            own = {one["name"]: one["value"] for one in container.get("env", ())}
            named = {**(common if "envFrom" in container else {}), **own}
            mounted = {
                f"{mount['mountPath']}/{item['path']}"
                for mount in container["volumeMounts"]
                for item in volumes.get(mount["name"], {"items": ()})["items"]
            }
            assert {value for name, value in named.items() if name.endswith("_FILE")} == mounted
            assert named["WAYPOST_POSTGRES_DSN_FILE"] in mounted
        # Files of mode 0440 are the group's.
        assert all(secret["defaultMode"] == 0o440 for secret in volumes.values())
        assert pod["securityContext"]["fsGroup"] == pod["securityContext"]["runAsUser"]


def test_pods_may_write_nothing_and_become_nobody_else() -> None:
    assert len(pods()) == 7
    for pod in pods():
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["automountServiceAccountToken"] is False
        for container in [*pod["containers"], *pod.get("initContainers", ())]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert "memory" in container["resources"]["limits"]


def test_a_job_takes_a_snapshot_looks_at_it_and_only_then_removes_old_ones(tmp_path: Path) -> None:
    folder = KUBERNETES / "components/snapshots"
    assert yaml.safe_load((folder / "kustomization.yaml").read_text())["images"] == [
        {"name": "waypost", "newName": IMAGE, "newTag": version()}
    ]
    (job,) = documents(folder / "cronjob.yaml")
    pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    containers = [*pod["initContainers"], *pod["containers"]]
    assert [container["args"][:2] for container in containers] == [
        ["snapshot", "create"],
        ["snapshot", "check"],
        ["snapshot", "prune"],
    ]
    for container in containers:
        # Known as they are written here: what is missing is only where Postgres and the snapshots are.
        line = CommandLine(
            tmp_path, {"WAYPOST_SNAPSHOTS": str(tmp_path), "WAYPOST_POSTGRES_DSN": "postgresql:///x"}
        )
        assert line.run(*container["args"]).code < 2


def test_a_job_expires_idle_sessions_with_its_own_login(tmp_path: Path) -> None:
    (job,) = documents(KUBERNETES / "components/expire/cronjob.yaml")
    (container,) = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    # A command of this version, which asks Postgres first and nobody else.
    line = CommandLine(tmp_path, {"WAYPOST_POSTGRES_DSN": "postgresql://127.0.0.1:1/x"})
    ended = line.run(*container["args"])
    assert (ended.code, "can't be reached" in ended.err) == (1, True)
    shows_the_certificate_of_its_user("CronJob", job["metadata"]["name"])


def shows_the_certificate_of_its_user(kind: str, name: str) -> None:
    added: Any = [step["value"] for step in strimzi_patch(kind, name)]
    secrets = {one["name"]: one["secret"]["secretName"] for one in added if "secret" in one}
    assert secrets == {"kafka-ca": "waypost-cluster-ca-cert", "kafka-user": name}
    assert {one["name"] for one in added if "mountPath" in one} == set(secrets)
    assert name in found("KafkaUser")


def strimzi_patch(kind: str, name: str) -> list[dict[str, Any]]:
    file = KUBERNETES / "components/strimzi/kustomization.yaml"
    patches = {
        (patch["target"]["kind"], patch["target"]["name"]): patch["patch"]
        for patch in yaml.safe_load(file.read_text())["patches"]
    }
    steps: list[dict[str, Any]] = yaml.safe_load(patches[kind, name])
    return steps


def test_the_console_lets_in_a_client_with_its_token_and_answers_its_probes(tmp_path: Path) -> None:
    folder = KUBERNETES / "components/console"
    assert yaml.safe_load((folder / "kustomization.yaml").read_text())["images"] == [
        {"name": "waypost", "newName": IMAGE, "newTag": version()}
    ]
    (deployment,) = documents(folder / "deployment.yaml")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    own = {one["name"].removeprefix("WAYPOST_").lower(): one["value"] for one in container["env"]}
    named = {name: value for name, value in own.items() if not name.endswith("_file")}
    settings = Settings(**named, console_token="x" * 16, postgres_dsn="postgresql:///x")
    check_settings(settings)
    assert settings.console_auth == "token"
    hosts = allowed_hosts(settings.console_host, settings.console_port or 0, [settings.console_hosts])
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        asked = container[probe]["httpGet"]
        # Not the login, which asks a provider if there is one.
        assert asked["path"].removeprefix("/static/") in STATIC
        (header,) = asked["httpHeaders"]
        assert (header["name"], header["value"] in hosts) == ("Host", True)
    assert container["ports"] == [{"name": "http", "containerPort": settings.console_port}]
    (service,) = documents(folder / "service.yaml")
    assert service["spec"]["selector"] == deployment["spec"]["selector"]["matchLabels"]
    shows_the_certificate_of_its_user("Deployment", deployment["metadata"]["name"])
    # A command of this version, with everything in the files that it reads.
    token, dsn = tmp_path / "token", tmp_path / "dsn"
    token.write_text("x" * 15)
    dsn.write_text("postgresql:///x")
    files = {"WAYPOST_CONSOLE_TOKEN_FILE": str(token), "WAYPOST_POSTGRES_DSN_FILE": str(dsn)}
    variables = {one["name"]: one["value"] for one in container["env"]} | files
    short = CommandLine(tmp_path, variables).run(*container["args"])
    assert (short.code, "console_token" in short.err) == (2, True)


def test_probes_ask_what_the_worker_answers_at_the_port_where_it_does() -> None:
    routes = {route.path for route in probes(Health(1), Metrics()).routes}  # type: ignore[attr-defined]
    (container,) = found("Deployment")["waypost-worker"]["spec"]["template"]["spec"]["containers"]
    asked = {
        container[probe]["httpGet"]["path"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")
    }
    assert asked == {"/startupz", "/livez", "/readyz"}
    (endpoint,) = found("ServiceMonitor")["waypost-worker"]["spec"]["endpoints"]
    assert asked | {endpoint["path"]} <= routes
    image = (DEPLOY / "Containerfile").read_text()
    port = container["ports"][0]["containerPort"]
    assert f"WAYPOST_HTTP_PORT={port}" in image
    assert f"EXPOSE {port}" in image
    assert found("Service")["waypost-worker"]["spec"]["ports"][0]["port"] == port


def test_topics_are_checked_before_a_worker_starts(tmp_path: Path) -> None:
    (pod,) = (one for one in pods() if one["containers"][0]["args"] == ["worker"])
    (first, *_) = pod["initContainers"]
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    assert first["args"] == services["topics-check"]["command"] == ["topics", "check"]
    done = {"condition": "service_completed_successfully"}
    assert services["topics-check"]["depends_on"] == {"topics": done}
    assert services["worker"]["depends_on"]["topics-check"] == done
    # The check reaches Kafka as the worker does.
    (worker,) = pod["containers"]
    assert first["envFrom"] == worker["envFrom"]
    assert first["volumeMounts"] == worker["volumeMounts"]
    mounts: dict[str, list[Any]] = {}
    for step in strimzi_patch("Deployment", "waypost-worker"):
        if step["path"].endswith("/volumeMounts/-"):
            mounts.setdefault(step["path"].split("/")[4], []).append(step["value"])
    assert mounts["initContainers"] == mounts["containers"]
    # What is written here is a command of this version.
    outcome = CommandLine(tmp_path, {"WAYPOST_BOOTSTRAP_SERVERS": "127.0.0.1:1"}).run(*first["args"])
    assert (outcome.code, "does not answer" in outcome.err) == (1, True)


def test_there_is_time_for_a_drain() -> None:
    drain = Settings.model_fields["drain_timeout"].default
    assert pods()[0]["terminationGracePeriodSeconds"] >= drain + 10
    worker = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["worker"]
    assert int(worker["stop_grace_period"].removesuffix("s")) >= drain + 10


def test_strimzi_makes_the_topics_that_the_command_line_would() -> None:
    topics = found("KafkaTopic")
    for name, settings in topic_settings(Topics(), 3).items():
        assert topics[name]["spec"]["config"] == settings
        assert topics[name]["spec"]["replicas"] == 3
    assert len({topic["spec"]["partitions"] for topic in topics.values()}) == 1
    most = found("ScaledObject")["waypost-worker"]["spec"]["maxReplicaCount"]
    assert most <= topics[Topics().commands]["spec"]["partitions"]


def test_users_have_the_least_rights() -> None:
    rights = {
        name: {
            (acl["resource"]["type"], acl["resource"]["name"], operation)
            for acl in user["spec"]["authorization"]["acls"]
            for operation in acl["operations"]
        }
        for name, user in found("KafkaUser").items()
    }
    topics = Topics()
    assert rights["waypost-agent"] == {
        ("topic", topics.commands, "Write"),
        ("topic", topics.commands, "Describe"),
    }
    assert rights["waypost-expire"] == {
        *rights["waypost-agent"],
        ("topic", topics.results, "Read"),
        ("topic", topics.results, "Describe"),
    }
    assert {
        (name, operation) for kind, name, operation in rights["waypost-subscriber"] if kind == "topic"
    } == {
        (topics.results, "Read"),
        (topics.results, "Describe"),
    }
    worker = rights["waypost-worker"]
    assert ("topic", topics.commands, "Write") not in worker
    assert ("group", Settings.model_fields["group_id"].default, "Read") in worker
    (prefix,) = {name for kind, name, _ in worker if kind == "transactionalId"}
    assert topics.transactional_id(7).startswith(prefix)


@pytest.mark.parametrize("lock", ["worker.lock", "build.lock"])
def test_what_the_image_installs_is_pinned_by_hash_to_what_was_tested(lock: str) -> None:
    text = (DEPLOY / lock).read_text()
    image, tested = pins(text), pins((ROOT / "requirements.lock").read_text())
    assert image
    for name, pinned in image.items():
        assert tested[name] == pinned
    assert text.count("--hash=sha256:") >= len(image)
    requirements = re.split(r"\n(?=\S)", text.strip())
    assert all("--hash=sha256:" in requirement for requirement in requirements)


def pins(text: str) -> dict[str, str]:
    return dict(re.findall(r"^([A-Za-z0-9._-]+)==([^\s;]+)", text, re.MULTILINE))
