"""What the console's pages show, as plain values that templates and the API render. Pure: no HTTP, no server."""
