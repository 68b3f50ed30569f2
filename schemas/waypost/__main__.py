"""``python -m waypost``: the command line, where the script ``waypost`` is not on the path."""

import runpy

# By name: the same wheel installs the service, but this package never imports it.
runpy.run_module("waypost_worker.cli", run_name="__main__")
