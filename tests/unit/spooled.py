"""A buffer with a spool behind it on a disk in memory, and the steps that its thread would take."""

from tests.unit.pending import pending

from waypost.errors import SpoolError
from waypost.publisher.options import OnFull
from waypost.publisher.pending import Pending
from waypost.publisher.spool.buffer import SpooledBuffer, SpoolShare
from waypost.publisher.spool.write_through import ThroughBuffer

ALL = 1_000_000


class Disk:
    """A spool file in memory. Fails where it is told to."""

    def __init__(self) -> None:
        self.rows: dict[int, Pending] = {}
        self.broken = False

    def add(self, commands: list[Pending]) -> None:
        if self.broken:
            raise SpoolError("the disk is broken")
        for each in commands:
            assert each.row not in self.rows
            self.rows[each.row] = each

    def read(self, first: int, last: int, most: int) -> list[Pending]:
        found = []
        for row in sorted(row for row in self.rows if first <= row <= last)[:most]:
            kept = self.rows[row]
            again = pending(kept.command_id, str(kept.session_id), kept.value)
            again.row, again.home = row, self
            found.append(again)
        return found


class World:
    """A spooled buffer, its disk, and the steps that the spooler's thread would take."""

    def __init__(
        self,
        *,
        through: bool = False,
        max_count: int = 8,
        max_disk_bytes: int = ALL,
        on_full: OnFull = "raise",
    ) -> None:
        self.disk = Disk()
        self.other = Disk()  # what a dead publisher left
        self.dropped: list[Pending] = []
        self.hints = 0
        self.read_of_other = 0
        kind = ThroughBuffer if through else SpooledBuffer
        self.buffer = kind(
            max_count,
            ALL,
            on_full,
            lambda: None,
            self.dropped.append,
            SpoolShare(self.disk, max_disk_bytes, (0, 0), self.hint),  # type: ignore[arg-type]
        )

    def hint(self) -> None:
        self.hints += 1

    def remove(self) -> None:
        for gone, settled in self.buffer.removals():
            for each in gone:
                each.home.rows.pop(each.row, None)  # type: ignore[union-attr]
            if settled is not None:
                settled()

    def save(self) -> None:
        chosen = self.buffer.save(self.buffer.unsaved())
        if chosen:
            self.disk.add(chosen)
            self.buffer.saved(chosen, well=True)
        self.remove()

    def spill(self, most: int = 100) -> None:
        self.remove()
        count, new = self.buffer.spill(most)
        if count:
            self.disk.add(new)
            self.buffer.spilled()
        self.remove()

    def load(self, most: int = 100) -> None:
        self.remove()
        if self.buffer.load_wanted():
            most = min(most, self.buffer.load_most)
            found = self.other.read(self.read_of_other + 1, ALL, most)
            if found:
                self.read_of_other = found[-1].row
            else:
                found = self.disk.read(*self.buffer.next_stored(), most)
            self.buffer.loaded(found)

    def adopt(self, *names: str, session: str = "other") -> bool:
        """Take over what another left; as if it had not been there, where that can't be."""
        left = [pending(name, session) for name in names]
        if not self.buffer.adopt(len(left), sum(each.size for each in left)):
            return False
        self.read_of_other = max(self.other.rows, default=0)
        for row, each in enumerate(left, self.read_of_other + 1):
            each.row = row
        self.other.add(left)
        return True

    def send_all(self) -> list[str]:
        """Everything through Kafka that can be had, in order (of one partition)."""
        sent: list[str] = []
        while True:
            self.spill()
            self.load()
            self.buffer.route(ALL)
            taken = self.buffer.take(0, ALL, ALL, {})
            if not taken:
                return sent
            gone = self.buffer.acknowledge(0, len(taken))
            sent += [each.command_id for each in gone]
            self.buffer.settle(gone, lambda: None)

    def put(self, *names: int, session: str = "session") -> None:
        for name in names:
            self.buffer.put(pending(f"{name}", session))
