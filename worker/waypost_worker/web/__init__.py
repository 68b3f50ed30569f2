"""HTTP of a worker: probes and metrics. A leaf; knows what telemetry offers and nothing of owners."""
