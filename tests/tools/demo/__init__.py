"""The whole service on a real Kafka and Postgres, with a worker killed in the middle: ``make demo``."""
