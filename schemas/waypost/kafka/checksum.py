"""CRC32C, the checksum of Kafka's record batches and of the publisher's spool."""

try:
    from google_crc32c import value as crc32c  # 0.1 us for each KB instead of 0.6
except ImportError:  # it comes with the worker extra
    from aiokafka.record.util import calc_crc32c as crc32c

__all__ = ["crc32c"]
