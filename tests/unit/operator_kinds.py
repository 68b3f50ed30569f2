"""What the manifests use of kinds that operators define (Strimzi, KEDA, the Prometheus operator): a strict schema of
the fields that their definitions have, for no package carries the definitions of all three as JSON Schema. Strict: a
field that is not listed here is an error, as the API server would drop it without a word.

Compared by program with the operators' CustomResourceDefinitions, field by field, and the manifests validated against
those in full: Strimzi 1.2.0 (commit 6c7b43c4; the manifests also with 0.49.1, 0.51.0, 1.0 and 1.1), KEDA 2.20.2
(68a5b502, the Kafka trigger's metadata with pkg/scalers/kafka_scaler.go; ScaledObject also with 2.16.1) and the
Prometheus operator 0.93.0 (f8fafd47; ServiceMonitor also with 0.80.0). Here are fewer fields than there, and more of
them required.
A field that a manifest newly uses is looked up in the operator's reference and added here.
"""

from typing import Any, Final

import jsonschema

Schema = dict[str, Any]
TEXT: Final[Schema] = {"type": "string", "minLength": 1}
NUMBER: Final[Schema] = {"type": "integer", "minimum": 0}
COUNT: Final[Schema] = {"type": "integer", "minimum": 1}
FLAG: Final[Schema] = {"type": "boolean"}
DURATION: Final[Schema] = {"type": "string", "pattern": r"^(\d+(ms|s|m|h|d|w))+$"}
TEXTS: Final[Schema] = {"type": "object", "additionalProperties": TEXT}


def one_of(*values: str) -> Schema:
    return {"enum": list(values)}


def many(items: Schema) -> Schema:
    return {"type": "array", "items": items, "minItems": 1}


def fields(required: Schema, **optional: Schema) -> Schema:
    return {
        "type": "object",
        "properties": {**required, **optional},
        "required": list(required),
        "additionalProperties": False,
    }


def kind(api: str, name: str, spec: Schema) -> tuple[tuple[str, str], Schema]:
    # Names of objects, and of topics that Strimzi makes of them, are DNS subdomains.
    identity = {"type": "string", "pattern": r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", "maxLength": 253}
    metadata = fields({"name": identity}, labels=TEXTS, annotations=TEXTS, namespace=TEXT)
    return (api, name), fields(
        {"apiVersion": {"const": api}, "kind": {"const": name}, "metadata": metadata, "spec": spec}
    )


_TOPIC = fields(
    {"partitions": COUNT, "replicas": {"type": "integer", "minimum": 1, "maximum": 32_767}},
    # Values of topic settings are texts here: a number would be written as YAML reads it.
    config=TEXTS,
    topicName=TEXT,
)
_OPERATIONS = one_of(
    *("Read", "Write", "Create", "Delete", "Alter", "Describe", "ClusterAction", "AlterConfigs"),
    *("DescribeConfigs", "IdempotentWrite", "All"),
)
_ACL = fields(
    {
        "resource": fields(
            {"type": one_of("topic", "group", "cluster", "transactionalId")},
            name=TEXT,
            patternType=one_of("literal", "prefix"),
        ),
        "operations": many(_OPERATIONS),
    },
    type=one_of("allow", "deny"),
    host=TEXT,
)
_USER = fields(
    {
        "authentication": fields({"type": one_of("tls", "tls-external", "scram-sha-512")}),
        "authorization": fields({"type": one_of("simple"), "acls": many(_ACL)}),
    },
    quotas=fields({}, producerByteRate=NUMBER, consumerByteRate=NUMBER, requestPercentage=NUMBER),
)
# KEDA takes the metadata of a trigger as texts; what the trigger kafka knows.
_KAFKA = fields(
    {"bootstrapServers": TEXT, "consumerGroup": TEXT, "topic": TEXT},
    lagThreshold={"type": "string", "pattern": r"^0*[1-9]\d*$"},  # KEDA refuses 0
    activationLagThreshold={"type": "string", "pattern": r"^\d+$"},
    offsetResetPolicy=one_of("latest", "earliest"),
    allowIdleConsumers=one_of("true", "false"),
    scaleToZeroOnInvalidOffset=one_of("true", "false"),
    excludePersistentLag=one_of("true", "false"),
    limitToPartitionsWithLag=one_of("true", "false"),
    ensureEvenDistributionOfPartitions=one_of("true", "false"),
    partitionLimitation=TEXT,
    version=TEXT,
    sasl=one_of("none", "plaintext", "scram_sha256", "scram_sha512", "gssapi", "oauthbearer"),
    tls=one_of("enable", "disable"),
    unsafeSsl=one_of("true", "false"),
)
_TRIGGER = fields(
    {"type": one_of("kafka"), "metadata": _KAFKA},
    authenticationRef=fields(
        {"name": TEXT}, kind=one_of("TriggerAuthentication", "ClusterTriggerAuthentication")
    ),
    name=TEXT,
    metricType=one_of("AverageValue", "Value", "Utilization"),
)
_POLICY = fields({"type": one_of("Pods", "Percent"), "value": COUNT, "periodSeconds": COUNT})
_SCALING = fields(
    {},
    stabilizationWindowSeconds=NUMBER,
    selectPolicy=one_of("Max", "Min", "Disabled"),
    policies=many(_POLICY),
)
_SCALED = fields(
    {"scaleTargetRef": fields({"name": TEXT}, apiVersion=TEXT, kind=TEXT), "triggers": many(_TRIGGER)},
    pollingInterval=COUNT,
    cooldownPeriod=NUMBER,
    initialCooldownPeriod=NUMBER,
    idleReplicaCount=NUMBER,
    minReplicaCount=NUMBER,
    maxReplicaCount=COUNT,
    fallback=fields({"failureThreshold": NUMBER, "replicas": NUMBER}),
    advanced=fields(
        {},
        restoreToOriginalReplicaCount=FLAG,
        horizontalPodAutoscalerConfig=fields(
            {}, name=TEXT, behavior=fields({}, scaleDown=_SCALING, scaleUp=_SCALING)
        ),
    ),
)
_AUTHENTICATION = fields(
    {"secretTargetRef": many(fields({"parameter": one_of("ca", "cert", "key"), "name": TEXT, "key": TEXT}))}
)
_RULE = fields({"alert": TEXT, "expr": TEXT}, **{"for": DURATION}, labels=TEXTS, annotations=TEXTS)
_RULES = fields({"groups": many(fields({"name": TEXT, "rules": many(_RULE)}, interval=DURATION))})
_ENDPOINT = fields(
    {"port": TEXT},
    path=TEXT,
    interval=DURATION,
    scrapeTimeout=DURATION,
    scheme=one_of("http", "https"),
    honorLabels=FLAG,
)
_MONITOR = fields(
    {"selector": fields({}, matchLabels=TEXTS), "endpoints": many(_ENDPOINT)},
    jobLabel=TEXT,
    podTargetLabels=many(TEXT),
    targetLabels=many(TEXT),
    namespaceSelector=fields({}, any=FLAG, matchNames=many(TEXT)),
)

KINDS: Final = dict(
    (
        kind("kafka.strimzi.io/v1", "KafkaTopic", _TOPIC),
        kind("kafka.strimzi.io/v1", "KafkaUser", _USER),
        kind("keda.sh/v1alpha1", "ScaledObject", _SCALED),
        kind("keda.sh/v1alpha1", "TriggerAuthentication", _AUTHENTICATION),
        kind("monitoring.coreos.com/v1", "PrometheusRule", _RULES),
        kind("monitoring.coreos.com/v1", "ServiceMonitor", _MONITOR),
    )
)


def check_custom(one: dict[str, Any]) -> None:
    """jsonschema.ValidationError unless it is as its operator wants it; KeyError if no operator here knows it."""
    jsonschema.validate(one, KINDS[one["apiVersion"], one["kind"]])
