"""The console in the browser: pages, forms and an API over what Reader and Publisher offer.

``pages`` holds what a page shows, as values, and knows neither HTTP nor a server; handlers are thin. May import the
library, ``operations``, ``config``, ``kafka`` and ``web``; never writes to Postgres but to remove rejected commands.
"""
