"""What agents pass as names, data and metadata: Python values that JSON can carry."""

import string
from typing import Any

from hypothesis import strategies as st

characters = st.characters(codec="utf-8")  # no lone surrogates
texts = st.text(characters, max_size=8)
_plain_names = st.text(string.ascii_lowercase + "_", min_size=1, max_size=12)
names = st.one_of(
    _plain_names, st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1, max_size=200)
)

_numbers = st.one_of(
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([-0.0, 1e15, 1e16, 2.0**63, 2.0**64, -(2.0**63), 1e300, 5e-324, 2**64 - 1, -(2**63)]),
)


def _objects(
    leaves: st.SearchStrategy[Any], keys: st.SearchStrategy[str]
) -> st.SearchStrategy[dict[str, Any]]:
    values = st.recursive(
        leaves,
        lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(keys, inner, max_size=3)),
        max_leaves=8,
    )
    return st.dictionaries(keys, values, max_size=4)


data = _objects(st.one_of(st.none(), st.booleans(), _numbers, texts), texts)
_without_nul = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)
metadata = _objects(st.one_of(st.none(), st.booleans(), _numbers, _without_nul), _without_nul)
