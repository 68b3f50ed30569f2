select version, deployment from waypost_keys.store
