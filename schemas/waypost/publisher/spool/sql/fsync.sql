-- Each commit is on the disk before it returns, and so survives a loss of power.
pragma synchronous = full;
