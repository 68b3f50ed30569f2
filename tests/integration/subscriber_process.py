"""A member of a group in a process of its own, to be killed: prints the subject of each event that it handled."""

import asyncio
import sys

import waypost


async def main(bootstrap_servers: str, prefix: str, group: str) -> None:
    async def handler(event: waypost.Event) -> None:
        print(event.subject, flush=True)

    options = {"session_timeout_ms": 3000, "heartbeat_interval_ms": 300}
    events = waypost.Subscriber(
        bootstrap_servers, topic_prefix=prefix, group=group, from_beginning=True, kafka_options=options
    )
    await events.run(handler)


asyncio.run(main(*sys.argv[1:]))
