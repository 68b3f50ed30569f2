"""The console in the browser: pages, forms and an API over what Reader and Publisher offer.

``pages`` holds what a page shows, as values, and knows neither HTTP nor a server; handlers are thin. May import the
library, ``web``, ``config``, ``operations``, ``kafka``, ``postgres``, ``recovery``, ``partition`` and ``findings``;
never writes to Postgres except to remove rejected commands.
"""
