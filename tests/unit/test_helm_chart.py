"""The Helm chart: what it renders is what the Kustomize overlays render, and what it does not accept."""

import json
import os
import re
import shutil
import subprocess
import sys
from base64 import b64decode
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support.servers import unavailable
from tests.unit.test_deploy_files import KUBERNETES, ROOT, check_object, run, version

from waypost_worker.config.secret_files import is_secret
from waypost_worker.config.settings import Settings

CHART = ROOT / "deploy/helm/waypost"
#: The values by the overlay that has the same.
SAME = {
    "plain": None,
    "try": CHART / "values-try.yaml",
    "autoscaled": CHART / "ci/autoscaled.yaml",
    "static": CHART / "ci/static.yaml",
}
FILES = [None, CHART / "values-try.yaml", *sorted((CHART / "ci").glob("*.yaml"))]
#: Labels that one of the two ways of rendering has of its own.
OWN = re.compile(r"app\.kubernetes\.io/(name|part-of|instance|version|managed-by)|helm\.sh/.*|checksum/.*")
Object = dict[str, Any]


def helm(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    program = shutil.which("helm", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if program is None:
        # Also in CI: it is built by Go, which few machines have.
        pytest.skip("helm is not here, which renders the chart: make helm")
    return run(program, *arguments)


def rendered(*arguments: str | Path, release: str = "waypost") -> str:
    done = helm("template", release, CHART, "--namespace", "agents", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


@cache
def chart(values: Path | None, *arguments: str, release: str = "waypost") -> list[Object]:
    named = () if values is None else ("--values", values)
    return loaded(rendered(*named, *arguments, release=release))


def loaded(text: str) -> list[Object]:
    return [one for one in yaml.safe_load_all(text) if one]


def overlay(path: Path) -> list[Object]:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        unavailable("kubectl is not here, which renders kustomizations")
    done = run(kubectl, "kustomize", "--load-restrictor", "LoadRestrictionsNone", path)
    assert done.returncode == 0, done.stderr
    text = done.stdout
    for one in loaded(text):
        # Kustomize adds a hash to these, so that other content has another name.
        name = one["metadata"]["name"]
        if one["kind"] in ("ConfigMap", "Secret"):
            text = text.replace(name, re.sub(r"-[a-z0-9]{10}$", "", name))
    return loaded(text)


def comparable(objects: list[Object]) -> dict[str, Object]:
    found = {}
    for one in objects:
        made = _without_own(one)
        if made["kind"] == "Job":
            # A finished Job can't be changed: the chart's have the number of the release's revision.
            made["metadata"]["name"] = made["metadata"]["name"].removesuffix("-1")
        if made["kind"] == "Secret":
            # One of the two breaks long lines of it.
            made["data"] = {key: b64decode(value) for key, value in made["data"].items()}
        found[f"{made['kind']} {made['metadata']['name']}"] = made
    return found


def _without_own(value: Any) -> Any:
    if isinstance(value, list):
        cleaned = [_without_own(each) for each in value]
        named = all(isinstance(each, dict) and "name" in each and len(each) == 2 for each in cleaned)
        return sorted(cleaned, key=lambda each: each["name"]) if named else cleaned
    if not isinstance(value, dict):
        return value
    cleaned = {key: _without_own(each) for key, each in value.items() if not OWN.fullmatch(key)}
    for key in ("labels", "annotations", "matchLabels"):
        if cleaned.get(key) == {}:
            del cleaned[key]
    return cleaned


@pytest.mark.parametrize("name", SAME)
def test_the_chart_renders_what_the_overlay_does(name: str) -> None:
    assert comparable(chart(SAME[name])) == comparable(overlay(KUBERNETES / "overlays" / name))


def test_with_everything_it_renders_what_an_overlay_with_every_component_does(tmp_path: Path) -> None:
    def path(name: str) -> str:
        return os.path.relpath(KUBERNETES / name, tmp_path)

    own = yaml.safe_load((KUBERNETES / "overlays/autoscaled/kustomization.yaml").read_text())
    own["resources"] = [path("base"), path("overlays/autoscaled/scaledobject.yaml")]
    own["components"] = [
        path(f"components/{name}") for name in ("monitoring", "snapshots", "expire", "console", "strimzi")
    ]
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(own))
    assert comparable(chart(CHART / "ci/components.yaml")) == comparable(overlay(tmp_path))


def test_the_comparison_sees_a_difference() -> None:
    changed = comparable(chart(None, "--set", "worker.replicas=4"))
    plain = comparable(chart(None))
    assert {name for name in plain if plain[name] != changed[name]} == {"Deployment waypost-worker"}


@pytest.mark.parametrize("values", FILES, ids=str)
def test_what_it_renders_is_valid_and_helm_finds_nothing_to_say(values: Path | None) -> None:
    for one in chart(values):
        check_object(one)
    named = () if values is None else ("--values", values)
    done = helm("lint", "--strict", CHART, *named)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("values", FILES, ids=str)
def test_every_setting_is_known_and_every_file_that_one_names_is_mounted(values: Path | None) -> None:
    objects = chart(values)
    (common,) = (one["data"] for one in objects if one["kind"] == "ConfigMap")
    known = {f"WAYPOST_{name}".upper() for name in Settings.model_fields}
    for pod in pods(objects):
        volumes = {volume["name"]: volume.get("secret", {"items": ()}) for volume in pod["volumes"]}
        for container in [*pod["containers"], *pod.get("initContainers", ())]:
            own = {one["name"]: one.get("value") for one in container.get("env", ())}
            if "envFrom" in container:
                own = {**common, **own}
            mounted = {
                f"{mount['mountPath']}/{item['path']}"
                for mount in container["volumeMounts"]
                for item in volumes[mount["name"]]["items"]
            }
            files = {value for name, value in own.items() if name.endswith("_FILE")}
            assert {name for name in own if name.startswith("WAYPOST_")} <= known
            if container["name"] in ("create", "check", "prune"):
                # These ask Postgres alone, whatever is set for Kafka.
                files = {file for file in files if "kafka" not in file}
            assert files == mounted


def pods(objects: list[Object]) -> list[Object]:
    specs = [one["spec"] for one in objects if one["kind"] in ("Deployment", "StatefulSet", "Job", "CronJob")]
    specs = [spec["jobTemplate"]["spec"] if "jobTemplate" in spec else spec for spec in specs]
    found = [spec["template"]["spec"] for spec in specs]
    return [pod for pod in found if pod["containers"][0]["name"] not in ("kafka", "postgres")]


def test_what_is_set_is_what_is_rendered() -> None:
    objects = comparable(chart(CHART / "ci/odd.yaml"))
    assert not [
        name for name in objects if name.split()[0] in ("Job", "ServiceAccount", "PodDisruptionBudget")
    ]
    settings = objects["ConfigMap saved"]["data"]
    assert settings["WAYPOST_BOOTSTRAP_SERVERS"] == "kafka-1:9093,kafka-2:9093"
    assert settings["WAYPOST_DRAIN_TIMEOUT"] == "30"
    worker = objects["Deployment saved-worker"]["spec"]["template"]
    assert worker["metadata"]["annotations"] == {"team": "agents"}
    pod = worker["spec"]
    digest = "sha256:0bc1bb2478f45b6cea78864df86acdc11e8df2c5172477819a4d12942cbe5d40"
    assert pod["containers"][0]["image"] == f"team/checkpoints:1.2@{digest}"
    assert pod["containers"][0]["imagePullPolicy"] == "Always"
    assert (pod["serviceAccountName"], pod["imagePullSecrets"]) == ("mine", [{"name": "pull"}])
    assert (pod["nodeSelector"], pod["terminationGracePeriodSeconds"]) == ({"disk": "fast"}, 60)
    assert {one["secret"]["secretName"] for one in pod["volumes"]} == {"databases", "authority", "of-workers"}
    trigger = objects["ScaledObject saved-worker"]["spec"]["triggers"][0]
    assert trigger["metadata"]["topic"] == "prod.commands"
    assert (trigger["metadata"]["consumerGroup"], trigger["metadata"]["lagThreshold"]) == (
        "prod-workers",
        "10",
    )
    assert objects["TriggerAuthentication saved-kafka"]["spec"]["secretTargetRef"][0]["name"] == "authority"
    console = objects["Deployment saved-console"]["spec"]["template"]["spec"]
    variables = {one["name"]: one["value"] for one in console["containers"][0]["env"]}
    assert variables["WAYPOST_CONSOLE_HOSTS"] == "console.example.net,console.example.net:8443"
    assert variables["WAYPOST_CONSOLE_OIDC_CLIENT_SECRET_FILE"] == "/etc/waypost/console/client-secret"
    assert "WAYPOST_CONSOLE_TOKEN_FILE" not in variables
    ports = objects["NetworkPolicy saved-console"]["spec"]["egress"][0]["ports"]
    assert {"port": 443, "protocol": "TCP"} in ports
    assert objects["ServiceMonitor saved-worker"]["metadata"]["labels"] == {"release": "prometheus"}


def test_a_public_client_has_no_secret() -> None:
    objects = comparable(chart(CHART / "ci/odd.yaml", "--set", "console.clientSecret=false"))
    pod = objects["Deployment saved-console"]["spec"]["template"]["spec"]
    assert "CLIENT_SECRET" not in json.dumps(pod)
    assert [item["key"] for item in pod["volumes"][0]["secret"]["items"]] == ["dsn"]


def test_large_numbers_are_written_as_numbers() -> None:
    given = "settings.WAYPOST_MAX_BATCH_BYTES=16777216,topics.partitions=1000000,settings.WAYPOST_DRAIN_TIMEOUT=0.5"
    text = json.dumps(chart(None, "--set", given))
    assert all(written in text for written in ('"16777216"', '"1000000"', '"0.5"'))


def test_two_releases_in_a_namespace_share_nothing() -> None:
    one, other = (chart(CHART / "values-try.yaml", release=name) for name in ("one", "other"))
    names = [{(each["kind"], each["metadata"]["name"]) for each in objects} for objects in (one, other)]
    assert not names[0] & names[1]
    for objects, release in ((one, "one"), (other, "other")):
        for each in objects:
            if each["kind"] in ("Deployment", "StatefulSet"):
                selector = each["spec"]["selector"]["matchLabels"]
                assert selector["app.kubernetes.io/instance"] == release
                assert selector.items() <= each["spec"]["template"]["metadata"]["labels"].items()
            if each["kind"] == "Service":
                assert each["spec"]["selector"]["app.kubernetes.io/instance"] == release


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("replicas=3", "replicas"),
        ("worker.replica=3", "replica"),
        ("worker.replicas=three", "replicas"),
        ("worker.kind=DaemonSet", "kind"),
        ("kafka.bootstrapServers=kafka", "bootstrapServers"),
        ("image.registry=https://registry.example", "registry"),
        ("image.digest=latest", "digest"),
        ("topics.partitions=0", "partitions"),
        ("purge.schedule=nightly", "schedule"),
        ("expire.idle=30", "idle"),
        ("console.auth=none", "auth"),
        ("console.hosts={}", "hosts"),
        ("settings.LOG_LEVEL=debug", "LOG_LEVEL"),
        ("settings.WAYPOST_POSTGRES_DSN=postgresql://a:b@c/d", "WAYPOST_POSTGRES_DSN"),
        ("console.settings.WAYPOST_CONSOLE_TOKEN=x", "WAYPOST_CONSOLE_TOKEN"),
        ("trial.password=short", "password"),
        ("trial.enabled=true,strimzi.enabled=true", "not"),
        ("autoscaling.minReplicas=-1", "minReplicas"),
    ],
)
def test_values_that_cannot_work_are_rejected(given: str, said: str) -> None:
    done = helm("template", "waypost", CHART, "--set", given)
    assert done.returncode != 0
    assert "values don't meet the specifications of the schema" in done.stderr
    assert said in done.stderr


def test_no_secret_is_a_setting_in_its_values() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    closed = schema["properties"]["settings"]["propertyNames"]["not"]["enum"]
    secrets = {name for name, field in Settings.model_fields.items() if is_secret(field)}
    assert set(closed) == {f"WAYPOST_{name}".upper() for name in secrets}


def test_it_is_of_this_version_and_has_the_alerts() -> None:
    said = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert said["version"] == said["appVersion"] == version()
    rules = yaml.safe_load((ROOT / "deploy/prometheus/waypost.rules.yaml").read_text())
    found = comparable(chart(CHART / "ci/autoscaled.yaml"))["PrometheusRule waypost"]
    assert found["spec"] == rules


@pytest.mark.parametrize(
    ("values", "said", "unsaid"),
    [
        (
            None,
            ["is a placeholder: set kafka.bootstrapServers", "has the key dsn", "waypost-migrate-1"],
            "TRIAL",
        ),
        (
            "values-try.yaml",
            ["TRIAL", "open http://localhost:8650", "token only-for-trying-out"],
            "has the key dsn",
        ),
        ("ci/odd.yaml", ["add localhost:8650 to console.hosts", "databases has the key dsn"], "placeholder"),
    ],
)
def test_the_notes_say_what_to_do(values: str | None, said: list[str], unsaid: str) -> None:
    named = () if values is None else ("--values", CHART / values)
    done = helm("install", "waypost", CHART, "--dry-run=client", *named)
    assert done.returncode == 0, done.stderr
    notes = done.stdout.partition("NOTES:")[2]
    assert all(each in notes for each in said), notes
    assert unsaid not in notes


@pytest.mark.parametrize(
    ("go", "said", "made"),
    [
        ('echo "$@" >"$GOBIN/asked"; : >"$GOBIN/helm"; chmod +x "$GOBIN/helm"', "Building helm v4", True),
        ("exit 1", "Go can't build it; tests of the chart will be skipped", False),
        (None, "neither it nor Go is here; tests of the chart will be skipped", False),
    ],
)
def test_helm_is_built_where_go_can_and_nothing_fails_elsewhere(
    tmp_path: Path, go: str | None, said: str, made: bool
) -> None:
    programs, target = tmp_path / "programs", tmp_path / "target"
    programs.mkdir()
    for name in ("sh", "mkdir", "chmod"):
        (programs / name).symlink_to(shutil.which(name) or name)
    if go is not None:
        (programs / "go").write_text(f"#!/bin/sh\n{go}\n")
        (programs / "go").chmod(0o755)
    done = subprocess.run(
        [ROOT / "deploy/fetch-helm", target],
        check=False,
        capture_output=True,
        text=True,
        env={"PATH": str(programs)},
    )
    assert (done.returncode, said in done.stdout + done.stderr) == (0, True), done
    assert (target / "helm").exists() is made
    if made:
        assert (target / "asked").read_text().startswith("install -trimpath helm.sh/helm/v4/cmd/helm@v4.")
