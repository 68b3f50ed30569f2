"""One owner of one partition: acquire, apply, emit. Knows the model and its own ports, nothing else."""
