"""Run a real Kafka and a real Postgres on the loopback interface, without Docker and without Java on the host.

``Servers`` starts both on one state directory; ``EmbeddedKafka`` (also as a cluster) and ``EmbeddedPostgres`` work
alone, too. May import only ``waypost.endpoints``: it knows neither Waypost's topics nor its tables.
"""

from waypost.endpoints import Endpoints
from waypost_worker.devserver.errors import DevServerError
from waypost_worker.devserver.jvm import FAST_START, THROUGHPUT, JvmProfile
from waypost_worker.devserver.kafka import ClusterOptions, EmbeddedKafka
from waypost_worker.devserver.node import KafkaNode
from waypost_worker.devserver.postgres import EmbeddedPostgres
from waypost_worker.devserver.servers import Servers

__all__ = [
    "FAST_START",
    "THROUGHPUT",
    "ClusterOptions",
    "DevServerError",
    "EmbeddedKafka",
    "EmbeddedPostgres",
    "Endpoints",
    "JvmProfile",
    "KafkaNode",
    "Servers",
]
