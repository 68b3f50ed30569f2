"""What is deployed beside the workers to watch them names only metrics that exist, and leads to the runbook."""

import importlib.util
import json
import re
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from tests.support.prometheus import promtool

from waypost_worker.telemetry.catalog import METRICS, RECOVERY_METRICS

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy/prometheus/waypost.rules.yaml"
RULE_TESTS = ROOT / "deploy/prometheus/waypost.rules.test.yaml"
EVERY = (*METRICS, *RECOVERY_METRICS)
SERIES = {series for metric in EVERY for series in metric.series}
LABELS = {label for metric in EVERY for label in metric.labels} | {"le", "instance"}


def reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("waypost_reference", ROOT / "deploy/reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def alerts() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    return list(group["rules"])


def named(query: str) -> set[str]:
    return set(re.findall(r"\bwaypost_[a-z_]+", query))


def labels_by(query: str) -> set[str]:
    lists = re.findall(r"(?:by|on) \(([^)]*)\)", query) + re.findall(r"([a-z]+)(?:=|!=|=~|!~)\"", query)
    return {label.strip() for found in lists for label in found.split(",")}


def test_what_is_made_from_the_code_is_up_to_date() -> None:
    assert reference().outdated() == [], "run 'make reference'"


def test_the_check_finds_a_file_that_was_changed_by_hand(tmp_path: Path) -> None:
    module = reference()
    for path, text in module.generated().items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    assert module.outdated(tmp_path) == []
    (tmp_path / "docs/metrics.md").write_text("# Mine\n")
    assert module.outdated(tmp_path) == [Path("docs/metrics.md")]


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert["alert"])
def test_an_alert_names_metrics_that_exist_and_its_section_of_the_runbook(alert: dict[str, Any]) -> None:
    assert named(alert["expr"])
    assert named(alert["expr"]) <= SERIES
    assert labels_by(alert["expr"]) <= LABELS
    assert alert["labels"]["severity"] in ("critical", "warning")
    page, anchor = alert["annotations"]["runbook_url"].split("#")
    headings = re.findall(r"^## (.*)$", (ROOT / page).read_text(), re.MULTILINE)
    assert anchor == alert["alert"].lower()
    assert alert["alert"] in headings


def test_the_runbook_has_no_section_of_an_alert_that_does_not_exist() -> None:
    text = (ROOT / "docs/runbook.md").read_text()
    assert set(re.findall(r"^## (Waypost\w+)$", text, re.MULTILINE)) == {alert["alert"] for alert in alerts()}


def test_the_dashboard_shows_every_metric_and_names_no_other() -> None:
    panels = json.loads((ROOT / "deploy/grafana/waypost.json").read_text())["panels"]
    queries = [target["expr"] for panel in panels for target in panel.get("targets", ())]
    used = set().union(*map(named, queries))
    assert used <= SERIES
    assert {metric.name for metric in EVERY if not used & set(metric.series)} == set()
    for query in queries:
        assert labels_by(query) <= LABELS, query
    places = [tuple(panel["gridPos"].values()) for panel in panels]
    assert len(set(places)) == len(places)


def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    fires, quiet = set(), set()
    for case in yaml.safe_load(RULE_TESTS.read_text())["tests"]:
        for one in case["alert_rule_test"]:
            (fires if one.get("exp_alerts") else quiet).add(one["alertname"])
    assert fires == quiet == {alert["alert"] for alert in alerts()}


def test_promtool_accepts_the_rules_and_their_tests_pass() -> None:
    tool = promtool()
    for arguments in (["check", "rules", str(RULES)], ["test", "rules", str(RULE_TESTS)]):
        done = subprocess.run([tool, *arguments], check=False, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_sees_a_wrong_rule(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(RULES.read_text().replace("> 0", "> ", 1))
    done = subprocess.run(
        [promtool(), "check", "rules", str(wrong)], check=False, capture_output=True, timeout=60
    )
    assert done.returncode != 0
