"""A program of 0.1 does the same with this version, and each old name that it uses says what to use instead."""

import ast
import asyncio
import json
import os
import re
import sys
from pathlib import Path

from tests.golden.files import HERE
from tests.support.deployment import deployment
from tests.support.timeouts import PATIENCE

import waypost
from waypost.deprecation import REMOVED_IN
from waypost_worker.devserver import Servers

PROGRAM = HERE / "0.1" / "program.py"
#: What a line of Python's says of a warning: where it is, its class, the old name and the new one.
WARNING = re.compile(
    rf"^(.+?):\d+: (\w+): (.+) is deprecated, and Waypost {re.escape(REMOVED_IN)} will not have it\. Use (.+)\.$"
)
KEYWORDS = {
    "'options' of Publisher": "'kafka_options'",
    "'options' of Subscriber": "'kafka_options'",
    "'options' of SyncPublisher": "'kafka_options'",
    "'options' of publisher_options": "'kafka_options'",
    "'prefix' of Backend": "'topic_prefix'",
    "'prefix' of Publisher": "'topic_prefix'",
    "'prefix' of Subscriber": "'topic_prefix'",
    "'prefix' of SyncPublisher": "'topic_prefix'",
}
NAMES = {
    "CommandResult.accepted": "raise_if_rejected()",
    "Deduplicator.seen": "check_and_add()",
    "Publisher.publish": "publish_raw()",
    "Publisher.room": "drain()",
    "Publisher.saved": "persisted()",
    "Reader.fetch": "the methods of session()",
    "Reader.fetch_all": "sessions()",
    "SessionInfo.checkpoints": "checkpoint_count",
    "SessionInfo.counter": "last_number",
    "SessionPage.__add__": "SessionPage.sessions",
    "SessionPage.copy": "SessionPage.sessions.copy()",
    "SessionPage.sort": "SessionPage.sessions.sort()",
    "SyncPublisher.publish": "publish_raw()",
    "SyncPublisher.saved": "persisted()",
    "waypost.Page": "waypost.CheckpointPage",
    "waypost.Policy": "waypost.RetentionPolicy",
    "waypost.WaitedResult": "waypost.CommandResult",
    "waypost.publisher_options.PublisherOptions": "waypost.PublisherOptions",
    "waypost.spans.continued_trace": "waypost.continued_trace",
    "waypost.token_file.TokenFile": "waypost.TokenFile",
}


async def test_a_program_of_0_1_does_the_same_with_warnings_only(
    servers: Servers, database: str, topic_prefix: str, tmp_path: Path
) -> None:
    async with deployment(servers.endpoints, database, topic_prefix, partitions=2) as here:
        for partition in range(here.partitions):
            here.own(partition)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-W", "default", PROGRAM),
            *(here.endpoints.bootstrap_servers, database, topic_prefix, tmp_path / "spool"),
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert process.returncode == 0, err.decode()
    assert json.loads(out) == json.loads(PROGRAM.with_suffix(".json").read_text("utf-8"))
    warned = [found.groups() for line in err.decode().splitlines() if (found := WARNING.match(line))]
    # None is shown at a line of the library: that would be its own use of an old name, or a wrong stack level.
    assert {(where, kind) for where, kind, _, _ in warned} == {(str(PROGRAM), "DeprecationWarning")}
    assert {old: new for _, _, old, new in warned} == KEYWORDS | NAMES


def test_the_program_uses_every_old_method_and_property_that_there_is() -> None:
    deprecated = {
        node.name
        for path in Path(waypost.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and any(ast.unparse(one).startswith("deprecated(") for one in node.decorator_list)
    }
    assert len(deprecated) > 8
    assert deprecated <= {old.rpartition(".")[2] for old in NAMES}
