"""The contents of the console's pages, as plain values that templates and the API render. Pure: no HTTP, no server."""
