"""The embedded Kafka: a real broker that can be killed, frozen and restarted, alone or as a cluster."""

import asyncio
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError
from tests.support.processes import arguments_of, freeze
from tests.support.servers import ServerDirectory, unavailable

from waypost_worker.devserver import THROUGHPUT, ClusterOptions, DevServerError, EmbeddedKafka
from waypost_worker.devserver.distribution import prepare
from waypost_worker.devserver.jvm import Runtime
from waypost_worker.devserver.ports import Port
from waypost_worker.devserver.readiness import java_hash, keys_of_all_partitions

pytestmark = pytest.mark.servers

IP_LOCAL_PORT_RANGE = 51


@pytest.fixture(scope="module")
def runtime() -> Runtime:
    try:
        return prepare()
    except DevServerError as error:
        unavailable(str(error))


@pytest.fixture
def tmp_path(server_path: Path) -> Path:
    """A directory for server data: most tests here start their own servers."""
    return server_path


@pytest.fixture
def kafka(runtime: Runtime, tmp_path: Path) -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka(tmp_path, ClusterOptions(runtime=runtime)) as running:
        yield running


async def create_topic(kafka: EmbeddedKafka, topic: str, *, replicas: int = 1) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, num_partitions=1, replication_factor=replicas)])
    finally:
        await admin.close()


async def publish(kafka: EmbeddedKafka, topic: str, value: bytes) -> None:
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers, acks="all") as producer:
        await producer.send_and_wait(topic, value, partition=0)


async def everything_in(kafka: EmbeddedKafka, topic: str) -> list[bytes]:
    async with AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap_servers) as consumer:
        partition = TopicPartition(topic, 0)
        consumer.assign([partition])
        await consumer.seek_to_beginning()
        end = (await consumer.end_offsets([partition]))[partition]
        return [(await consumer.getone()).value for _ in range(end)]


async def test_records_and_address_survive_a_restart_and_a_kill(kafka: EmbeddedKafka) -> None:
    address, first_pid = kafka.bootstrap_servers, kafka.pid
    await create_topic(kafka, "kept")
    await publish(kafka, "kept", b"one")
    await asyncio.to_thread(kafka.restart)
    assert kafka.pid != first_pid
    await publish(kafka, "kept", b"two")
    kafka.kill()
    assert not kafka.running
    await asyncio.to_thread(kafka.restart)
    assert kafka.bootstrap_servers == address
    assert await everything_in(kafka, "kept") == [b"one", b"two"]


async def test_while_it_is_down_its_port_refuses_and_nobody_else_gets_it(kafka: EmbeddedKafka) -> None:
    kafka.kill()
    port = kafka.nodes[0].port
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)
    with pytest.raises(OSError, match="in use"), socket.socket() as other:
        other.bind(("127.0.0.1", port))


async def test_a_suspended_broker_answers_nothing_until_resumed(kafka: EmbeddedKafka) -> None:
    await create_topic(kafka, "frozen")
    freeze(kafka)
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers, request_timeout_ms=500)
    with pytest.raises(KafkaError):
        await producer.start()
    await producer.stop()
    kafka.resume()
    await asyncio.to_thread(kafka.wait_until_ready)
    await publish(kafka, "frozen", b"thawed")


async def test_a_terminated_broker_shuts_down_by_itself(kafka: EmbeddedKafka) -> None:
    kafka.terminate()
    assert kafka.nodes[0].wait(30) == 128 + 15


async def test_stopping_ends_the_process_and_the_directory_can_be_started_again(kafka: EmbeddedKafka) -> None:
    await create_topic(kafka, "kept")
    await publish(kafka, "kept", b"one")
    cluster = kafka.nodes[0].cluster_id
    kafka.stop()
    assert not kafka.running
    kafka.start()
    assert kafka.nodes[0].cluster_id == cluster
    assert await everything_in(kafka, "kept") == [b"one"]


async def test_properties_and_profile_reach_the_broker(runtime: Runtime, tmp_path: Path) -> None:
    async with EmbeddedKafka(
        tmp_path,
        ClusterOptions(runtime=runtime, profile=THROUGHPUT, properties={"log.retention.ms": "777000"}),
    ) as kafka:
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
        await admin.start()
        try:
            (reply,) = await admin.describe_configs([ConfigResource(ConfigResourceType.BROKER, "1")])
        finally:
            await admin.close()
        values = {entry[0]: entry[1] for entry in reply.resources[0][4]}
        assert values["log.retention.ms"] == "777000"
        assert values["auto.create.topics.enable"] == "false"
        assert values["unclean.leader.election.enable"] == "false"
        assert "-XX:+UseG1GC" in arguments_of(kafka.pid)


def test_a_broker_that_cannot_start_shows_the_end_of_its_log(runtime: Runtime, tmp_path: Path) -> None:
    kafka = EmbeddedKafka(tmp_path, ClusterOptions(runtime=runtime, properties={"log.retention.ms": "soon"}))
    with pytest.raises(DevServerError, match=r"Invalid value soon for configuration log\.retention\.ms"):
        kafka.start()
    assert not kafka.running


def test_a_directory_in_use_is_refused_and_its_owner_is_named(kafka: EmbeddedKafka, tmp_path: Path) -> None:
    other = EmbeddedKafka(tmp_path)
    with pytest.raises(DevServerError, match=f"in use by process {os.getpid()}"):
        other.start()
    assert kafka.running


def test_a_port_in_use_is_refused_before_anything_starts(runtime: Runtime, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(DevServerError, match=f"port {port} on 127.0.0.1 can't be used"):
            EmbeddedKafka(tmp_path, ClusterOptions(runtime=runtime, port=port)).start()


def test_the_system_gives_a_reserved_port_to_nobody() -> None:
    port = Port()
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as outgoing:
        only_this_port = struct.pack("@I", port.number << 16 | port.number)
        try:
            outgoing.setsockopt(socket.IPPROTO_IP, IP_LOCAL_PORT_RANGE, only_this_port)
        except OSError:
            pytest.skip("this kernel can't narrow the ports of an outgoing connection (Linux 6.3 can)")
        with pytest.raises(OSError, match="Cannot assign requested address"):
            outgoing.connect(listener.getsockname())
        port.release()
        outgoing.connect(listener.getsockname())
        assert outgoing.getsockname()[1] == port.number


def test_the_readiness_probe_reaches_every_partition_of_a_coordinator() -> None:
    assert java_hash("hello") == 99162322
    assert java_hash("polygenelubricants") == -(2**31)
    assert len(set(keys_of_all_partitions("waypost-ready", 3))) == 3


def test_it_starts_without_an_event_loop_and_from_a_plain_script(tmp_path: Path, runtime: Runtime) -> None:
    script = f"""
from pathlib import Path
from waypost_worker.devserver import EmbeddedKafka
with EmbeddedKafka(Path({str(tmp_path)!r})) as kafka:
    print(kafka.bootstrap_servers)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("127.0.0.1:")


@pytest.fixture(scope="module")
def cluster(runtime: Runtime, server_directory: ServerDirectory) -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka(server_directory("cluster"), ClusterOptions(nodes=3, runtime=runtime)) as running:
        yield running
        # Nobody needs its state: don't wait for the last node to miss its quorum.
        running.kill()


async def test_a_cluster_takes_records_while_its_nodes_restart_in_turn(cluster: EmbeddedKafka) -> None:
    await create_topic(cluster, "rolled", replicas=3)
    restart = asyncio.create_task(asyncio.to_thread(cluster.restart))
    sent = 0
    async with AIOKafkaProducer(
        bootstrap_servers=cluster.bootstrap_servers, enable_idempotence=True
    ) as producer:
        while not restart.done() or sent == 0:
            await producer.send_and_wait("rolled", str(sent).encode(), partition=0)
            sent += 1
            # Sending as fast as possible would only slow the nodes' start down.
            await asyncio.wait({restart}, timeout=0.02)
    await restart
    assert await everything_in(cluster, "rolled") == [str(number).encode() for number in range(sent)]


async def test_a_cluster_continues_without_one_killed_node_which_can_come_back(
    cluster: EmbeddedKafka,
) -> None:
    await create_topic(cluster, "survives", replicas=3)
    cluster.nodes[0].kill()
    await publish(cluster, "survives", b"two are enough")
    await asyncio.to_thread(cluster.restart_node, cluster.nodes[0])
    assert all(node.running for node in cluster.nodes)
    assert await everything_in(cluster, "survives") == [b"two are enough"]
