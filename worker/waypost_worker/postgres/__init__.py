"""The owner's Store on PostgreSQL, its schema and its migrations. Knows nothing of Kafka."""
