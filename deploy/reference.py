"""Writes what is made from the code: docs/metrics.md, docs/settings.md, the Grafana dashboard; and the alert rules as
the Prometheus operator wants them.

``python deploy/reference.py`` writes them, ``--check`` only says which are out of date (exit code 1).
"""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from waypost_worker.config.settings import Settings
from waypost_worker.telemetry import catalog as c
from waypost_worker.telemetry.catalog import METRICS, RECOVERY_METRICS, Metric

ROOT: Final = Path(__file__).parent.parent
_RULES_NOTE: Final = (
    "# Made from deploy/prometheus/waypost.rules.yaml by `make reference`; change it there.\n"
)
_GENERATED: Final = "<!-- Made from the code by `make reference`; change it there. -->"


def metrics_page() -> str:
    """docs/metrics.md."""
    return f"""# Metrics

{_GENERATED}

If `WAYPOST_HTTP_PORT` is set, a worker serves these metrics at `/metrics`, in the Prometheus or OpenMetrics text
format. Times are in seconds. No label contains a session id or anything else that agents choose, so the number of
series is bounded by the number of partitions. The page also has the process metrics of `prometheus-client`
(`process_cpu_seconds_total`, `process_resident_memory_bytes`, …).

{_table(METRICS)}

## Recovery commands

`waypost replay` and `waypost verify` serve these at `/metrics` while they run, if you pass `--metrics-port`. They do
not serve `waypost_build_info`, so they do not count as workers.

{_table(RECOVERY_METRICS)}

Alerts are in `deploy/prometheus/waypost.rules.yaml`, a dashboard is in `deploy/grafana/waypost.json`, and the
[runbook](runbook.md) says what to do if an alert fires.
"""


def _table(metrics: Sequence[Metric]) -> str:
    rows = "\n".join(
        f"| `{_shown(metric)}` | {metric.kind} | {', '.join(metric.labels) or '-'} | {metric.meaning} |"
        for metric in metrics
    )
    return f"| metric | kind | labels | meaning |\n|---|---|---|---|\n{rows}"


def _shown(metric: Metric) -> str:
    return f"{metric.name}_total" if metric.kind == "counter" else metric.name


def settings_page() -> str:
    """docs/settings.md."""
    rows = "\n".join(_setting(name, field) for name, field in Settings.model_fields.items())
    return f"""# Settings

{_GENERATED}

Each setting is a variable `WAYPOST_NAME`, a key `name` of the TOML file `waypost.toml` (or the one that
`WAYPOST_CONFIG_FILE` names) and, if a command has it, a flag `--name`. Flags take precedence over variables, and
variables over the file. An unknown name is an error. `waypost config show` prints the settings in effect, with
secrets masked. Times are in seconds, sizes in bytes. No setting changes the effect of a command in the log.

The library's clients read `bootstrap_servers`, `postgres_dsn`, `topic_prefix`, `postgres_schema`, those that begin
with `kafka_`, and those of [encryption](encryption.md) (from `keys_dsn` to `allow_plaintext`) from the same places, but
only if you create them without addresses, as in `waypost.Publisher()`.

| setting | default | allowed | meaning |
|---|---|---|---|
{rows}

Commands also read `WAYPOST_STATE_DIR` (the dev server's directory), and `WAYPOST_CACHE_DIR` and
`WAYPOST_MAVEN_REPOSITORY` (where the embedded servers' files are stored and downloaded from). A worker that sends
traces reads the OpenTelemetry SDK's `OTEL_…` variables.
"""


def _setting(name: str, field: FieldInfo) -> str:
    default = field.default
    if isinstance(default, SecretStr):
        default = default.get_secret_value()
    shown = "-" if default is None or default is PydanticUndefined else f"`{_toml(default)}`"
    meaning = (field.description or "").replace("|", "\\|")
    return f"| `{name}` | {shown} | {_allowed(field)} | {meaning} |"


def _toml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _allowed(field: FieldInfo) -> str:
    kinds = _literals(field.annotation)
    if kinds:
        return ", ".join(f"`{kind}`" for kind in kinds)
    bounds = {
        type(bound).__name__.lower(): getattr(bound, type(bound).__name__.lower())
        for bound in field.metadata
        if type(bound).__name__ in ("Ge", "Le")
    }
    if {"ge", "le"} <= set(bounds):
        return f"{bounds['ge']} to {bounds['le']}"
    if "ge" in bounds:
        return f"{bounds['ge']} or more"
    if field.annotation is bool:
        return "`true`, `false`"
    return "text"


def _literals(annotation: Any) -> tuple[str, ...]:
    found = getattr(annotation, "__args__", ())
    nested = (text for one in found for text in _literals(one))
    return (*(one for one in found if isinstance(one, str)), *nested)


def dashboard() -> dict[str, Any]:
    """deploy/grafana/waypost.json: rows of what is asked first, what it rests on, the process, and recovery."""
    rows: list[tuple[str, list[tuple[str, str, list[tuple[str, str]]]]]] = [
        (
            "Service",
            [
                (
                    "Commands per second",
                    "ops",
                    [(_rate(c.COMMANDS, "type, outcome"), "{{type}} {{outcome}}")],
                ),
                (
                    "Rejections a second",
                    "ops",
                    [
                        (_rate(c.REJECTED, "code"), "{{code}}"),
                        (f"sum({_rates(c.REJECTED_DROPPED)})", "dropped for newer ones"),
                    ],
                ),
                (
                    "Expired checkpoints a second",
                    "ops",
                    [(f"sum({_rates(c.EXPIRED_CHECKPOINTS)})", "of idle sessions")],
                ),
                ("Command to result", "s", list(_quantiles(c.END_TO_END_SECONDS))),
                ("Lag by partition", "short", [(f"max by (partition) ({c.LAG.name})", "{{partition}}")]),
                (
                    "Age of the newest applied command",
                    "s",
                    [(f"max by (partition) ({c.RECORD_AGE.name})", "{{partition}}")],
                ),
                (
                    "Partitions",
                    "short",
                    [
                        (f"sum({metric.name})", metric.name)
                        for metric in (c.ASSIGNED, c.OWNED, c.REFUSED, c.FAILING)
                    ],
                ),
                (
                    "Stopped at offset",
                    "none",
                    [(f"max by (partition) ({c.REFUSED_OFFSET.name})", "{{partition}}")],
                ),
                (
                    "Behind an open transaction",
                    "s",
                    [(f"max by (partition) ({c.OPEN_TRANSACTION.name})", "{{partition}}")],
                ),
            ],
        ),
        (
            "Owners",
            [
                ("Batch size", "short", list(_quantiles(c.BATCH_COMMANDS))),
                ("Batch duration", "s", list(_quantiles(c.BATCH_SECONDS))),
                (
                    "Postgres, 95 %",
                    "s",
                    [(_quantile(c.POSTGRES_SECONDS, 0.95, "shard, operation"), "{{shard}} {{operation}}")],
                ),
                ("Appending results", "s", list(_quantiles(c.EMIT_SECONDS))),
                ("Bytes of results per second", "Bps", [(f"sum({_rates(c.RESULT_BYTES)})", "all results")]),
                ("Terms ended a minute", "short", [(f"60 * {_rate(c.TERMS_ENDED, 'reason')}", "{{reason}}")]),
                (
                    "Takeovers",
                    "short",
                    [
                        (f"60 * sum({_rates(c.ACQUISITIONS)})", "acquired a minute"),
                        (f"sum({_rates(c.REEMITTED)})", "results emitted for a former owner, a second"),
                    ],
                ),
                ("Acquiring", "s", list(_quantiles(c.ACQUIRE_SECONDS))),
                (
                    "Since the last progress",
                    "s",
                    [(f"time() - max by (partition) ({c.LAST_PROGRESS.name})", "{{partition}}")],
                ),
            ],
        ),
        (
            "Process",
            [
                (
                    "Connections to Postgres",
                    "short",
                    [
                        (
                            f"sum by (instance, shard, state) ({c.POOL.name})",
                            "{{instance}} {{shard}} {{state}}",
                        ),
                        (c.POOL_MOST.name, "{{instance}} {{shard}} limit"),
                    ],
                ),
                (
                    "Databases that do not answer",
                    "short",
                    [(f"sum by (shard) ({c.SHARD_UP.name} == bool 0)", "{{shard}}: workers")],
                ),
                ("Delay of the event loop", "s", [(c.LOOP_DELAY.name, "{{instance}}")]),
                (
                    "CPU",
                    "percentunit",
                    [("rate(process_cpu_seconds_total[$__rate_interval])", "{{instance}}")],
                ),
                ("Memory", "bytes", [("process_resident_memory_bytes", "{{instance}}")]),
                ("Versions", "short", [(f"count by (version, python) ({c.BUILD.name})", "{{version}}")]),
            ],
        ),
        (
            "Recovery",
            [
                (
                    "Replay and verify: share done",
                    "percentunit",
                    [
                        (
                            f"sum by (work) ({c.RECOVERED.name}_total) / max by (work) ({c.PLANNED.name})",
                            "{{work}}",
                        )
                    ],
                ),
                ("Records per second", "ops", [(_rate(c.RECOVERED, "work"), "{{work}}")]),
                (
                    "Next offset, by partition",
                    "short",
                    [(f"max by (work, partition) ({c.RECOVERY_OFFSET.name})", "{{work}} {{partition}}")],
                ),
            ],
        ),
    ]
    panels: list[dict[str, Any]] = []
    y = 0
    for title, described in rows:
        panels.append(
            {
                "id": len(panels) + 1,
                "type": "row",
                "title": title,
                "gridPos": {"h": 1, "w": 24, "x": 0, "y": y},
                "panels": [],
            }
        )
        y += 1
        for index, (name, unit, targets) in enumerate(described):
            place = {"h": 8, "w": 8, "x": 8 * (index % 3), "y": y + 8 * (index // 3)}
            panels.append(_panel(len(panels) + 1, name, unit, targets, place))
        y += 8 * -(-len(described) // 3)
    return {
        "uid": "waypost-worker",
        "title": "Waypost workers",
        "tags": ["waypost"],
        "schemaVersion": 39,
        "time": {"from": "now-1h", "to": "now"},
        "refresh": "30s",
        "templating": {
            "list": [{"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"}]
        },
        "panels": panels,
    }


def _panel(
    number: int, title: str, unit: str, targets: list[tuple[str, str]], place: dict[str, int]
) -> dict[str, Any]:
    source = {"type": "prometheus", "uid": "${source}"}
    return {
        "id": number,
        "type": "timeseries",
        "title": title,
        "datasource": source,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}},
        "targets": [
            {"refId": chr(ord("A") + index), "datasource": source, "expr": query, "legendFormat": legend}
            for index, (query, legend) in enumerate(targets)
        ],
    }


def _rates(metric: Metric) -> str:
    return f"rate({metric.name}_total[$__rate_interval])"


def _rate(metric: Metric, by: str) -> str:
    return f"sum by ({by}) ({_rates(metric)})"


def _quantile(metric: Metric, quantile: float, by: str = "") -> str:
    labels = ", ".join(filter(None, ("le", by)))
    return f"histogram_quantile({quantile}, sum by ({labels}) (rate({metric.name}_bucket[$__rate_interval])))"


def _quantiles(metric: Metric) -> Iterator[tuple[str, str]]:
    for quantile in (0.5, 0.95, 0.99):
        yield _quantile(metric, quantile), f"{quantile:.0%}"


def prometheus_rule() -> str:
    """deploy/kubernetes/components/monitoring/prometheusrule.yaml: the rules in the operator's wrapping."""
    rules = yaml.safe_load((ROOT / "deploy/prometheus/waypost.rules.yaml").read_text())
    wrapped = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "waypost"},
        "spec": rules,
    }
    return _RULES_NOTE + yaml.safe_dump(wrapped, sort_keys=False, width=110)


def chart_rules() -> str:
    """deploy/helm/waypost/files/waypost.rules.yaml: the rules, where the chart can read them."""
    rules = yaml.safe_load((ROOT / "deploy/prometheus/waypost.rules.yaml").read_text())
    return _RULES_NOTE + yaml.safe_dump(rules, sort_keys=False, width=110)


def generated() -> dict[Path, str]:
    """Every file that is made from the code, by its path in the repository."""
    return {
        Path("docs/metrics.md"): metrics_page(),
        Path("docs/settings.md"): settings_page(),
        Path("deploy/grafana/waypost.json"): json.dumps(dashboard(), indent=2) + "\n",
        Path("deploy/kubernetes/components/monitoring/prometheusrule.yaml"): prometheus_rule(),
        Path("deploy/helm/waypost/files/waypost.rules.yaml"): chart_rules(),
    }


def outdated(root: Path = ROOT) -> list[Path]:
    """The files that differ from what the code makes."""
    return [
        path
        for path, text in generated().items()
        if not (root / path).exists() or (root / path).read_text() != text
    ]


def main() -> int:
    """Write, or only check."""
    differing = outdated()
    if "--check" in sys.argv[1:]:
        for path in differing:
            print(f"{path} is out of date: run 'make reference'", file=sys.stderr)  # noqa: T201
        return 1 if differing else 0
    for path in differing:
        (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / path).write_text(generated()[path])
        print(f"wrote {path}")  # noqa: T201
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
