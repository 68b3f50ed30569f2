"""Agent processes killed with SIGKILL under load, and what became of every command that they had accepted."""
