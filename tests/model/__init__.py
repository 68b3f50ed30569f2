"""A model of the protocol that is explored exhaustively."""
