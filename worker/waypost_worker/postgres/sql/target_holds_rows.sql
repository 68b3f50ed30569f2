select
    exists (select from waypost.sessions)
    or exists (select from waypost.checkpoints)
    or exists (select from waypost.recent_commands)
    or exists (select from waypost.rejected_commands)
    or exists (select from waypost.outbox)
