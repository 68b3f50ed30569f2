"""Mutants of what is folded from the log: the memory of command ids, and what a batch changes in the store."""

from tests.mutants.mutant import Edit, Mutant

SESSION = "waypost.model.session:"
INDEX = "waypost.model.index:"
RETENTION = "waypost.model.retention_index:RetentionIndex."
BATCH = "waypost_worker.partition.batch:Batch."
INDEXED = ("tests/properties/test_retention_index.py::test_both_ways_decide_the_same",)

MODEL: tuple[Mutant, ...] = (
    Mutant(
        "duplicates-applied",
        "a command whose id was seen before is applied again",
        (Edit(SESSION + "decide", "if command.id is not None and session.knows(command.id):", "if False:"),),
    ),
    Mutant(
        "duplicates-window-too-small",
        "only the last two command ids are remembered",
        (
            Edit(
                INDEX + "Session.forget",
                "if len(self.recent) <= FORGET_ABOVE:",
                "if len(self.recent) < 3:",
            ),
            Edit(INDEX + "Session.forget", "in self.recent[:-DEDUP_WINDOW]:", "in self.recent[:-2]:"),
            Edit(INDEX + "Session.forget", "del self.recent[:-DEDUP_WINDOW]", "del self.recent[:-2]"),
        ),
    ),
    Mutant(
        "forgotten-in-memory-only",
        "command ids that are forgotten stay in the store",
        (
            Edit(
                BATCH + "_evolve",
                "changes.forgotten[session_id] = max(before, memory.forgotten_below)",
                "pass",
            ),
        ),
    ),
    Mutant(
        "ids-of-dropped-checkpoints-forgotten",
        "the command id of a checkpoint that retention dropped is not remembered",
        (Edit(INDEX + "Session.drop", "if entry.command_id is None:", "if True:"),),
    ),
    Mutant(
        "retention-not-stored",
        "what retention drops stays in the store",
        (Edit(BATCH + "_evolve", "self._drop(session_id, number)", "pass"),),
    ),
    Mutant(
        "dropped-in-its-own-batch-stored",
        "what a batch both made and dropped is stored",
        (
            Edit(
                BATCH + "_drop",
                "if self.changes.puts.pop(key, None) is None:",
                "if key not in self.changes.puts:",
            ),
        ),
    ),
    Mutant(
        "numbers-used-again",
        "the counter of a session goes back when its newest checkpoint is deleted",
        (
            Edit(
                INDEX + "Session.drop",
                "del self._numbers[bisect_left(self._numbers, number)]",
                "del self._numbers[bisect_left(self._numbers, number)]\n"
                "    self.counter = self._numbers[-1] if self._numbers else 0",
            ),
        ),
    ),
    Mutant(
        "rollback-shows-later-state",
        "the result of a rollback shows its checkpoint as later commands of the batch left it",
        (Edit(BATCH + "add", "replace(entry), content_now)", "entry, content_now)"),),
    ),
    Mutant(
        "active-sessions-expire",
        "a session expires although it had a command at the very time since which it is to be idle",
        (Edit(SESSION + "_expire", "last >= action.idle_since", "last > action.idle_since"),),
    ),
    Mutant(
        "sessions-expire-ahead-of-time",
        "a session expires because it will have been idle at some time in the future",
        (Edit(SESSION + "_expire", "if action.idle_since > now:", "if False:"),),
    ),
    Mutant(
        "pinned-checkpoints-expire",
        "an expiry takes pinned checkpoints along, whatever it was told",
        (Edit(SESSION + "_expire", "session.removable(action.pinned)", "session.removable(True)"),),
    ),
    Mutant(
        "expired-ids-forgotten-at-once",
        "a command that is repeated after its checkpoint expired is applied again",
        (Edit(SESSION + "_expire", "forgets=not removed", "forgets=True"),),
    ),
    Mutant(
        "expired-ids-stay-in-the-store",
        "the command ids that an expiry forgets stay in the store",
        (
            Edit(
                SESSION + "evolve",
                "command.position if forgets else session.forget()",
                "None if forgets else session.forget()",
            ),
        ),
    ),
    Mutant(
        "expired-ids-come-back",
        "what an expiry forgot stays in the store if the same batch forgets older ids later",
        (
            Edit(
                BATCH + "_evolve",
                "max(before, memory.forgotten_below)",
                "memory.forgotten_below",
            ),
        ),
        ("tests/unit/test_session_expiry.py",),
    ),
    Mutant(
        "activity-not-noted",
        "a session that is in memory keeps the time of its first command",
        (
            Edit(
                SESSION + "evolve",
                "session.last_recorded_at = command.recorded_at",
                "session.last_recorded_at = session.last_recorded_at or command.recorded_at",
            ),
        ),
    ),
    Mutant(
        "activity-not-loaded",
        "a session that is loaded from Postgres is taken for one that was always silent",
        (Edit("waypost_worker.postgres.store:_session", 'row["last_recorded_at"],', "0,"),),
        (
            "tests/conformance/test_store_batches.py"
            "::test_a_loaded_session_knows_when_its_last_command_was_recorded",
        ),
    ),
    Mutant(
        "a-preview-without-compression",
        "a preview of a policy leaves out what compression would remove",
        (Edit("waypost.model.preview:preview_policy", "compress=True", "compress=False"),),
        ("tests/unit/test_preview.py",),
    ),
    Mutant(
        "defaults-not-stored",
        "a new default policy is kept in memory only",
        (
            Edit(
                "waypost_worker.partition.batch:ChangeCollector.note_partition",
                "self.changes.default_policy = state.policy",
                "pass",
            ),
        ),
    ),
    Mutant(
        "authority-not-stored",
        "who may configure a partition is kept in memory only",
        (
            Edit(
                "waypost_worker.partition.batch:ChangeCollector.note_partition",
                "self.changes.authority = state.authority",
                "pass",
            ),
            Edit(
                "waypost_worker.partition.batch:Batch._decide_for_partition",
                "self.changes.authority = self._state.authority",
                "pass",
            ),
        ),
    ),
    Mutant(
        "a-signed-command-counts-again",
        "a signed command may be as old as the last one, so anybody can send it again",
        (
            Edit(
                "waypost.model.partition_state:PartitionState._refused",
                "command.taken_at <= signed_at",
                "command.taken_at < signed_at",
            ),
        ),
    ),
    Mutant(
        "a-signature-of-any-partition",
        "a command that was signed for one partition is accepted in all of them",
        (
            Edit(
                "waypost_worker.partition.signatures:is_signed",
                "signed_message(partition, ",
                "signed_message(0, ",
            ),
        ),
    ),
    Mutant(
        "a-rejected-signed-command-counts-again",
        "a signed command that is rejected for another reason can be sent again by anybody",
        (Edit("waypost.model.partition_state:PartitionState.take", "self._note_time(command)", "pass"),),
        ("tests/unit/test_partition_state.py::test_a_signed_command_counts_once_even_if_it_is_rejected",),
    ),
    Mutant(
        "a-skipped-command-is-forgotten",
        "Postgres does not know which commands were skipped",
        (
            Edit(
                "waypost_worker.partition.batch:ChangeCollector.note_skipped",
                "self.changes.authority = state.authority",
                "pass",
            ),
        ),
    ),
    Mutant(
        "an-order-skips-any-command",
        "an order skips whatever is at its offset, even a command about the partition",
        (
            Edit(
                "waypost_worker.partition.skips:SkipOrder.names",
                "and not concerns_partition(record)",
                "",
            ),
        ),
        ("tests/simulation/test_skips.py::test_a_command_about_the_partition_cant_be_skipped",),
    ),
    Mutant(
        "pins-not-counted",
        "a checkpoint that is pinned does not count against the limit of pins",
        (Edit(INDEX + "Session.pin", "self._pins += 1 if pinned else -1", "pass"),),
    ),
    Mutant(
        "superfluous-only-before-a-drop",
        "a large session forgets that a checkpoint is superfluous when the next one of its name goes",
        (
            Edit(
                RETENTION + "dropped",
                "heappush(self._superseded, (numbers[at], numbers[at - 1]))",
                "pass",
            ),
        ),
        INDEXED,
    ),
    Mutant(
        "unpinned-not-noticed",
        "a large session never drops what was pinned once",
        (Edit(RETENTION + "unpinned", "self._take(entry)", "pass"),),
        INDEXED,
    ),
    Mutant(
        "age-looked-at-once",
        "a large session that decided on what is too old no longer finds it",
        (Edit(RETENTION + "too_old", "heappush(self._ages, item)", "pass"),),
        INDEXED,
    ),
    Mutant(
        "recent-counted-with-the-aged",
        "a large session counts what is too old among the recent that compression keeps",
        (Edit(RETENTION + "_last_before", "behind = len(gone) - bisect_right(gone, number)", "behind = 0"),),
        INDEXED,
    ),
    Mutant(
        "replaced-keeps-its-former-name",
        "a large session takes a replaced checkpoint for one of its former name",
        (Edit(INDEX + "Session.replace", "self._retention.dropped(former)", "return"),),
        INDEXED,
    ),
)
