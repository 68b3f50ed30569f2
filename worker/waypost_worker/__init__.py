"""The Waypost service."""
