"""Operations on a deployment, as values: differences, stored sessions, words for results.

The command line and the console are two ways to show it. May import the library, ``kafka``, ``postgres`` and
``findings``; knows neither a terminal nor a browser.
"""
