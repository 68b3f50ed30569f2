"""Small changes to the model that no test notices, each with the reason why none can. See docs/mutation-testing.md."""

SURVIVORS: dict[str, str] = {}
