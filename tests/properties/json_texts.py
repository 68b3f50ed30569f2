"""JSON as text, and what is nearly JSON, chosen to confuse a reader that takes short cuts."""

from hypothesis import strategies as st
from tests.properties.generate import weighted

_good_strings = st.sampled_from(
    [
        r'""',
        r'"a"',
        r'"b"',
        r'"}"',
        r'"{"',
        r'"]["',
        r'"\""',
        r'"\\"',
        r'"\\\"}"',
        r'"\u007d"',
        r'"é"',
        r'"\ud83d\ude00"',
        r'"null"',
        r'"\u0000"',
        r'"9999999999999999999999999"',
        '"\u2028"',
        '"\x7f"',
        '" , "',
    ]
)
_bad_strings = st.sampled_from([r'"\ud800"', r'"\x"', '"', '"\n"', "'a'", '"\ud800"'])
strings = weighted((30, _good_strings), (1, _bad_strings))
_good_numbers = st.sampled_from(
    ["0", "-0", "-0.0", "1.0", "1e2", "1e-400", "0.1", "1764000000000000000", "1.2345678901234567890123"]
    + [str(n) for n in (2**63 - 1, 2**63, -(2**63), 2**64 - 1, 10**19)]
    + [f"{2**64}.0", "123456789012345678901234567890e-9"]
)
_bad_numbers = st.sampled_from(
    ["01", "+1", ".5", "1.", "NaN", "-Infinity", "1E+400", str(2**64), str(-(2**63) - 1), str(10**30), "long"]
).map(lambda text: "9" * 5000 if text == "long" else text)
_atoms = weighted(
    (12, strings), (10, _good_numbers), (6, st.sampled_from(["true", "false", "null"])), (1, _bad_numbers)
)
_good_space = st.sampled_from([" ", "\n\t", "\r "])
_bad_space = st.sampled_from(["\f", "\u00a0", "\x00"])
space = weighted((60, st.just("")), (10, _good_space), (1, _bad_space))


def _objects(members: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.builds(
        lambda s, found: "{" + s + ",".join(found) + s + "}", space, st.lists(members, max_size=3)
    )


def _containers(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    arrays = st.builds(
        lambda s, items: f"[{s}" + f",{s}".join(items) + "]", space, st.lists(inner, max_size=3)
    )
    return st.one_of(
        arrays, _objects(st.builds(lambda key, s, value: f"{key}{s}:{value}", strings, space, inner))
    )


values = st.recursive(_atoms, _containers, max_leaves=6)
_shallow = _objects(st.builds(lambda key, value: f"{key}:{value}", strings, values))
# As deep as allowed, give or take some; and many brackets without depth.
_deep = st.integers(97, 102).map(lambda levels: '{"a":' + "[" * levels + "]" * levels + "}")
_wide = st.integers(98, 103).map(lambda times: '{"a":[' + ",".join(['{"b":"]"}'] * times) + "]}")
objects = weighted((20, _shallow), (2, _deep), (1, _wide))
_names = weighted(
    (12, st.sampled_from(['"started"', '"x"', '"a}b{"'])), (3, strings), (1, st.just('"' + "n" * 201 + '"'))
)


@st.composite
def create_bodies(draw: st.DrawFn) -> bytes:
    """Bodies that are a create's, nearly one, or were one before some bytes changed."""
    fields = [("name", draw(_names))]
    if draw(st.booleans()):
        fields.append(("metadata", draw(objects)))
    fields.append(("data", draw(weighted((20, objects), (1, values)))))
    if draw(st.integers(0, 19)) == 0:
        extra = (draw(st.sampled_from(["name", "data", "extra", "metadata"])), "{}")
        fields.insert(draw(st.integers(0, 3)), extra)
    if draw(st.integers(0, 4)) == 0:
        fields = draw(st.permutations(fields))
    spaces = [draw(space) for _ in range(4)] if draw(st.integers(0, 3)) == 0 else [""] * 4
    inner = ("," + spaces[0]).join(f'"{key}":{spaces[1]}{value}' for key, value in fields)
    body = ("{" + inner + spaces[2] + "}" + spaces[3]).encode("utf-8", "surrogatepass")
    return draw(_mutated(body)) if draw(st.integers(0, 3)) == 0 else body


@st.composite
def _mutated(draw: st.DrawFn, body: bytes) -> bytes:
    """A few bytes replaced, dropped, put in or doubled."""
    for _ in range(draw(st.integers(1, 2))):
        start = draw(st.integers(0, len(body)))
        end = min(len(body), start + draw(st.integers(0, 3)))
        put = draw(st.sampled_from([b"", b"{", b"}", b'"', b"\\", b",", b" ", b"\xff", b"\x00", b"twice"]))
        body = body[:start] + (body[start:end] * 2 if put == b"twice" else put) + body[end:]
    return body
