"""``python -m waypost``: the command line, where the script ``waypost`` is not on the path."""

import runpy

# By name: the same wheel installs it, but nothing of this package imports the service.
runpy.run_module("waypost_worker.cli", run_name="__main__")
