"""Apply checkpoint commands from Kafka to Postgres: the service and its command line."""
