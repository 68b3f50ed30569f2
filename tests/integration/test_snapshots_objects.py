"""Snapshots in an S3-compatible object store."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.cli import CommandLine
from tests.support.deployment import Deployment
from tests.support.snapshots import contents, empty, here, line, restored, run, said, taken, worked

__all__ = ["empty", "here", "line"]


@pytest.fixture
def bucket(line: CommandLine, monkeypatch: pytest.MonkeyPatch) -> Iterator[CommandLine]:
    """The same, with snapshots in a bucket of an S3-compatible server."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    access = {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ALLOW_HTTP": "true",
    }
    client = boto3.client(
        "s3",
        endpoint_url=access["AWS_ENDPOINT_URL"],
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    client.create_bucket(Bucket="backups")
    settings = {**line.settings, **access, "WAYPOST_SNAPSHOTS": "s3://backups/waypost/prod"}
    yield replace(line, settings=settings)
    server.stop()


async def test_object_storage_holds_the_same(
    here: Deployment, bucket: CommandLine, empty: str, tmp_path: Path
) -> None:
    await worked(here)
    assert (await run(bucket, "snapshot", "list")).err == "s3://backups/waypost/prod holds no snapshots\n"
    made = await taken(bucket)
    assert made["at"] == "s3://backups/waypost/prod"
    assert (await run(bucket, "snapshot", "check")).code == 0
    proved = await run(bucket, "verify", "--of-snapshot", "latest")
    assert proved.code == 0, proved.err
    assert (await restored(bucket, empty)).code == 0
    assert await contents(empty) == await contents(here.dsn)
    local = CommandLine(tmp_path, {**bucket.settings, "WAYPOST_SNAPSHOTS": str(tmp_path / "local")})
    sizes = [run["bytes"] for run in (await taken(local), made)]
    assert sizes[0] == sizes[1] > 0
    second = await taken(bucket)
    assert (await run(bucket, "snapshot", "prune", "--keep", "1", "--yes")).code == 0
    assert [row["name"] for row in (await run(bucket, "snapshot", "list", "-o", "json")).json] == [
        second["name"]
    ]


async def test_object_storage_that_is_unreachable_or_refuses_is_reported_in_one_line(
    here: Deployment, bucket: CommandLine
) -> None:
    await worked(here, 6)
    missing = await run(bucket, "snapshot", "create", "--at", "s3://nobodys-bucket/x")
    assert "s3://nobodys-bucket/x/" in said(missing)
    unknown = await run(bucket, "snapshot", "create", "--at", "ftp://somewhere/x")
    assert "ftp://somewhere/x can't be used" in said(unknown)
