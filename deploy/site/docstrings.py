"""An extension of griffe: docstrings as Markdown, without deprecated names.

The source has roles of reStructuredText, such as ``:meth:`run` ``, which editors understand. On the site they are code,
and links if they name something public.
"""

import re
from typing import Any, Final

import griffe

_ROLE: Final = re.compile(r":(?:class|meth|func|mod|attr|data|exc):`~?([\w.]+)`")
# Terms with an indented explanation below, as in PublisherOptions.
_TERM: Final = re.compile(r"^(``.*``)\n {4}(?=\S)", re.MULTILINE)
_PUBLIC: Final = re.compile(r"waypost(?:\.adapters(?:\.[a-z_]+)?)?\.[A-Z]\w+(?:\.\w+)?")


def markdown(docstring: str) -> str:
    """Turn roles into code or links, and terms into a list of definitions."""
    return _TERM.sub(r"\n\1\n:   ", _ROLE.sub(_linked, docstring))


def _linked(found: re.Match[str]) -> str:
    name = found[1]
    if _PUBLIC.fullmatch(name):
        return f"[`{name.removeprefix('waypost.')}`][{name}]"
    return f"`{name}`"


class Docstrings(griffe.Extension):
    """Rewrites docstrings, and removes what is deprecated."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of one object, and drop its deprecated members."""
        if obj.docstring is not None:
            obj.docstring.value = markdown(obj.docstring.value)
        for name, member in list(obj.members.items()):
            if isinstance(member, griffe.Function | griffe.Attribute) and _deprecated(member):
                del obj.members[name]


def _deprecated(member: griffe.Function | griffe.Attribute) -> bool:
    decorators = getattr(member, "decorators", ())
    return any(str(decorator.value).startswith("deprecated(") for decorator in decorators) or any(
        label == "deprecated" for label in member.labels
    )
