"""The commands of a drill, as docs/recovery.md has them, run one after the other."""

import asyncio
import re
import shlex
from pathlib import Path

from tests.support.cli import CommandLine, Outcome
from tests.support.deployment import Deployment
from tests.support.recovery import PARTITIONS, run

from waypost import Topics

PAGE = Path(__file__).parents[2] / "docs" / "recovery.md"


def sections() -> dict[str, list[str]]:
    """For each drill of the page its command lines."""
    found = {}
    for section in re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE):
        title, _, text = section.partition("\n")
        if title.startswith("Drill: "):
            blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
            found[title.removeprefix("Drill: ")] = "".join(blocks).splitlines()
    return found


class Drill:
    """Runs the commands of one drill, in order. ``waypost worker`` starts an owner of every partition."""

    def __init__(self, title: str, live: Deployment, line: CommandLine) -> None:
        self._lines = sections()[title]
        self._live = live
        self._line = line
        self.values: dict[str, str] = {}

    async def step(self) -> Outcome:
        """The next command; it must end as the page says."""
        text = self._lines.pop(0)
        command, _, remark = text.partition("#")
        for name, value in self.values.items():
            command = command.replace(name, value)
        program, *arguments = shlex.split(command)
        assert program == "waypost", text
        if arguments[0] == "worker":
            if "--topic-prefix" in arguments:
                self._live.topics = Topics(arguments[arguments.index("--topic-prefix") + 1])
            for partition in range(PARTITIONS):
                self._live.own(partition)
            return Outcome(0, "", "")
        if arguments[0] == "tail":  # it handles signals, which only a process of its own can
            outcome = await asyncio.to_thread(self._line.start(*arguments).wait)
        else:
            outcome = await run(self._line, *arguments)
        expected = 1 if "exit code 1" in remark else 0
        assert outcome.code == expected, (text, outcome)
        return outcome

    async def rest(self) -> None:
        """All that is left."""
        while self._lines:
            await self.step()

    @property
    def done(self) -> bool:
        """Whether no command is left."""
        return not self._lines
