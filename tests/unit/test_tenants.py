"""Which tenant a session belongs to, and that a tenant's range of ids holds its sessions and no others."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import waypost
from waypost.errors import AccessDeniedError, InvalidArgumentError
from waypost.model.limits import MAX_SESSION_ID, text_problem
from waypost.model.tenants import (
    MAX_TENANT,
    TenantScope,
    check_tenant,
    tenant_of,
    tenant_prefix,
    tenant_range,
)

#: Close to the separator and to each other, so that neighbors in the order of ids are tried.
_NEAR = st.text(alphabet="ab/.0%_\\'A\u00e9e\u0301\ue000\U0010ffff", min_size=1, max_size=6)
_IDS = st.one_of(_NEAR, st.text(min_size=1, max_size=40)).filter(lambda text: text_problem(text, 200) is None)
_TENANTS = _IDS.map(lambda text: text.replace("/", "") or "a")


@pytest.mark.parametrize(
    ("session_id", "tenant"),
    [
        ("acme/run-1", "acme"),
        ("acme/", "acme"),
        ("acme//x", "acme"),
        ("acme/a/b", "acme"),
        ("acme2/run-1", "acme2"),
        ("Acme/run-1", "Acme"),
        (" acme /run-1", " acme "),
        ("%/run-1", "%"),
        ("a' or 1=1 --/x", "a' or 1=1 --"),
        ("acme", None),
        ("acme\\x", None),
        ("acme\u2215x", None),
        ("/x", None),
        ("//x", None),
        ("/", None),
    ],
)
def test_the_tenant_is_what_stands_before_the_first_slash(session_id: str, tenant: str | None) -> None:
    assert tenant_of(session_id) == tenant
    assert waypost.tenant_of is tenant_of


@given(_TENANTS, _IDS)
@example("acme", "acme2/x")
@example("acme", "acme/")
@example("acme", "acme0")
@example("acme", "acme")
@example("a\u0301", "\u00e1/x")
@example("_", "a/x")
def test_a_tenants_range_holds_its_sessions_and_no_others(tenant: str, session_id: str) -> None:
    first, end = tenant_range(tenant)
    # Postgres compares the bytes of UTF-8 (collation "C"), Python compares code points: the order is the same.
    assert (first <= session_id < end) == (tenant_of(session_id) == tenant)
    encoded = session_id.encode()
    assert (first.encode() <= encoded < end.encode()) == (tenant_of(session_id) == tenant)
    assert session_id.startswith(tenant_prefix(tenant)) == (tenant_of(session_id) == tenant)


@pytest.mark.parametrize(
    ("tenant", "problem"),
    [
        ("", "is empty"),
        ("acme/x", "contains '/'"),
        ("/", "contains '/'"),
        ("a\0", "control character"),
        ("a\n", "control character"),
        ("\ud800", "lone surrogate"),
        ("x" * (MAX_TENANT + 1), f"at most {MAX_TENANT}"),
    ],
)
def test_a_name_that_no_tenant_can_have_is_rejected(tenant: str, problem: str) -> None:
    for use in (check_tenant, tenant_prefix, tenant_range):
        with pytest.raises(InvalidArgumentError, match=problem) as caught:
            use(tenant)
        assert str(caught.value).isprintable()


def test_the_longest_tenant_has_room_for_its_slash() -> None:
    longest = "x" * MAX_TENANT
    assert text_problem(tenant_prefix(longest), MAX_SESSION_ID) is None
    assert tenant_of(tenant_prefix(longest)) == longest


def test_a_tenant_that_is_not_a_string_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="not int"):
        check_tenant(7)  # type: ignore[arg-type]


# What a reader of a tenant may read.


@given(_TENANTS, _IDS)
@example("acme", "acme2/x")
@example("acme", "acme")
def test_a_scope_holds_the_tenants_sessions_and_refuses_others(tenant: str, session_id: str) -> None:
    scope = TenantScope(tenant)
    assert scope.holds(session_id) == (tenant_of(session_id) == tenant)
    if scope.holds(session_id):
        scope.require(session_id)
        return
    with pytest.raises(AccessDeniedError, match=r"Nothing was read or changed\.") as caught:
        scope.require(session_id)
    assert str(caught.value).isprintable()


@given(_TENANTS, _IDS, st.integers(min_value=0, max_value=8))
@example("acme", "acme2/x", 5)
@example("acme", "acme/x", 5)
def test_a_narrowed_prefix_lists_what_both_allow(tenant: str, session_id: str, length: int) -> None:
    scope, prefix = TenantScope(tenant), session_id[:length]
    narrowed = scope.narrowed(prefix)
    for each in (session_id, f"{tenant}/{session_id}", tenant):
        allowed = scope.holds(each) and each.startswith(prefix)
        assert (narrowed is not None and each.startswith(narrowed)) == allowed


def test_without_a_tenant_everything_may_be_read() -> None:
    scope = TenantScope()
    for session_id in ("acme/x", "x", "/x", "", None):
        assert scope.holds(session_id)
    assert scope.narrowed("acme2/") == "acme2/"
    assert scope.bounds == (None, None)
    assert TenantScope("acme").bounds == tenant_range("acme")
    # A command that names no session is no tenant's.
    assert not TenantScope("acme").holds(None)
