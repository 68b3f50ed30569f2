"""Alternative systems that users could choose, doing the benchmark's job next to the service."""
