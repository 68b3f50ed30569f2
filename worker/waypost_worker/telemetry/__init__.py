"""What operators see of a worker: logs today, metrics and probes beside them."""
