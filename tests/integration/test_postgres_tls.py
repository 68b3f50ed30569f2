"""TLS to Postgres with verification, on a server of the system's programs: the embedded one is built without TLS."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio
import trustme
from tests.integration.test_kafka_security import loaded, working
from tests.support.cli import CommandLine
from tests.support.deployment import deployment
from tests.support.system_postgres import SystemPostgres, system_postgres

from waypost import Reader
from waypost_worker.devserver import Endpoints, Servers
from waypost_worker.postgres.migrate import migrate_dsn

PASSWORD = "a-word-to-pass"


@dataclass(frozen=True)
class Protected:
    """A server that takes TLS only, and the files of its clients."""

    server: SystemPostgres
    directory: Path

    def dsn(self, **options: str) -> str:
        given = {"sslmode": "verify-full", "sslrootcert": str(self.directory / "ca.pem"), **options}
        query = "&".join(f"{name}={value}" for name, value in given.items() if value)
        return f"postgresql://app:{PASSWORD}@127.0.0.1:{self.server.port}/postgres?{query}"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def protected(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Protected]:
    directory = tmp_path_factory.mktemp("postgres-tls")
    authority, stranger = trustme.CA(), trustme.CA()
    (directory / "ca.pem").write_bytes(authority.cert_pem.bytes())
    (directory / "other-ca.pem").write_bytes(stranger.cert_pem.bytes())
    for name, signer in (("app", authority), ("stranger", stranger)):
        issued = signer.issue_cert(f"{name}.test", common_name=name)
        (directory / f"{name}.key").write_bytes(issued.private_key_pem.bytes())
        (directory / f"{name}.pem").write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
        (directory / f"{name}.key").chmod(0o600)
    own = authority.issue_cert("127.0.0.1")
    files = {
        "server.key": own.private_key_pem.bytes(),
        "server.crt": b"".join(pem.bytes() for pem in own.cert_chain_pems),
        "clients.crt": authority.cert_pem.bytes(),
        "pg_hba.conf": b"local all all trust\n"
        b"hostssl all app 127.0.0.1/32 scram-sha-256\n"
        b"hostssl all certified 127.0.0.1/32 cert map=names\n",
        "pg_ident.conf": b"names app certified\n",
    }
    settings = ("ssl=on", "ssl_cert_file=server.crt", "ssl_key_file=server.key", "ssl_ca_file=clients.crt")
    async with system_postgres(files, settings) as server:
        admin = await asyncpg.connect(host=str(server.directory), port=server.port, user="postgres")
        await admin.execute(f"create role app login password '{PASSWORD}'; create role certified login")
        await admin.execute("grant create on database postgres to app")
        await admin.close()
        yield Protected(server, directory)


async def test_worker_reader_and_command_line_use_tls(
    protected: Protected, servers: Servers, topic_prefix: str, tmp_path: Path
) -> None:
    dsn = protected.dsn()
    await migrate_dsn(dsn)
    async with deployment(Endpoints(servers.kafka.bootstrap_servers, dsn), dsn, topic_prefix) as world:
        variables = {
            "WAYPOST_BOOTSTRAP_SERVERS": servers.kafka.bootstrap_servers,
            "WAYPOST_POSTGRES_DSN": dsn,
            "WAYPOST_TOPIC_PREFIX": topic_prefix,
            "WAYPOST_GROUP_ID": topic_prefix,
        }
        async with working(loaded(variables)), Reader(dsn) as reader:
            await world.create("s", "kept")
            await world.answered(1)
            assert [one.session_id for one in await reader.sessions()] == ["s"]
            used = await world.pool.fetchval(
                "select bool_and(ssl) from pg_stat_ssl join pg_stat_activity using (pid) "
                "where backend_type = 'client backend'"
            )
            assert used is True
        listed = await asyncio.to_thread(
            CommandLine(tmp_path, variables).run, "session", "list", "-o", "json"
        )
        assert listed.code == 0, listed.err
        await world.balanced()


async def test_a_client_certificate_is_a_login(protected: Protected) -> None:
    files = protected.directory
    certified = protected.dsn(sslcert=str(files / "app.pem"), sslkey=str(files / "app.key"))
    dsn = certified.replace(f"app:{PASSWORD}", "certified")
    connection = await asyncpg.connect(dsn)
    assert await connection.fetchval("select current_user") == "certified"
    await connection.close()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"sslrootcert": "other-ca.pem"},
            "a certificate that is not trusted here: self-signed certificate in",
        ),
        ({"host": "localhost"}, "a certificate that is not trusted here: Hostname mismatch"),
        ({"sslmode": "disable"}, "no pg_hba.conf entry"),
        ({"password": "another"}, 'password authentication failed for user "app"'),
        ({"sslrootcert": "missing.pem"}, "a file or socket that the DSN names: No such file or directory"),
    ],
    ids=["unknown authority", "another name", "no TLS", "wrong password", "missing file"],
)
def test_problems_are_reported_in_one_line_without_the_secret(
    protected: Protected, change: dict[str, str], said: str, tmp_path: Path
) -> None:
    options = {name: value for name, value in change.items() if name == "sslmode"}
    if "sslrootcert" in change:
        options["sslrootcert"] = str(protected.directory / change["sslrootcert"])
    dsn = protected.dsn(**options).replace("127.0.0.1", change.get("host", "127.0.0.1"))
    dsn = dsn.replace(PASSWORD, change.get("password", PASSWORD))
    found = CommandLine(tmp_path, {"WAYPOST_POSTGRES_DSN": dsn}).run("migrate", "--dry-run")
    assert found.code == 1
    assert said in found.error
    assert PASSWORD not in found.error
    assert "another@" not in found.error


async def test_without_verification_a_stranger_in_between_would_be_believed(protected: Protected) -> None:
    """Why docs/security.md asks for verify-full: sslmode=require takes any certificate."""
    wrong = str(protected.directory / "other-ca.pem")
    connection = await asyncpg.connect(protected.dsn(sslmode="require", sslrootcert=""))
    await connection.close()
    with pytest.raises(ssl.SSLCertVerificationError):
        await asyncpg.connect(protected.dsn(sslrootcert=wrong))
