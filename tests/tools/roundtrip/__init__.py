"""A large log there and back: live, verified, replayed, rebuilt from results, killed in the middle of each."""
