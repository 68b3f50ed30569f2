"""Systems that users would otherwise take, doing the benchmark's job beside the service."""
