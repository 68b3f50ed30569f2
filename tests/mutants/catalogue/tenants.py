"""Mutants of what separates tenants: in the SQL of the policies, in readers, and in what a tenant is."""

from tests.mutants.mutant import Edit, Mutant

POLICIES = "sql:tenants"
MODEL = "waypost.model.tenants:"
UNIT = "tests/unit/test_tenants.py"
ROLES = "tests/integration/test_tenants.py::"
READERS = "tests/integration/test_tenants_reader.py::"
_SEES = ROLES + "test_a_bound_role_sees_its_tenant_in_every_table_and_view"

TENANTS: tuple[Mutant, ...] = (
    Mutant(
        "tenant-policy-permissive",
        "the policy of a tenant allows its rows, besides the one that allows all",
        (Edit(POLICIES, "as restrictive to", "as permissive to"),),
        tests=(_SEES,),
    ),
    Mutant(
        "tenant-by-beginning",
        "a tenant sees all ids that begin with its name",
        (
            Edit(
                POLICIES,
                "'session_id >= (select waypost.reader_tenant()) || ''/'' '",
                "'session_id >= (select waypost.reader_tenant()) '",
            ),
        ),
        tests=(_SEES,),
    ),
    Mutant(
        "tenant-table-without-policy",
        "one table of sessions has no policy",
        (Edit(POLICIES, "array['sessions', 'checkpoints', 'recent", "array['sessions', 'recent"),),
        tests=(ROLES + "test_every_table_is_closed_to_tenants_or_bound_by_a_policy",),
    ),
    Mutant(
        "tenant-sees-the-outbox",
        "a tenant's role that was given more rights sees results of all sessions",
        (Edit(POLICIES, "select 'outbox', 'false'", "select 'outbox', 'true'"),),
        tests=(ROLES + "test_grants_of_everything_do_not_open_the_outbox",),
    ),
    Mutant(
        "tenant-sees-bindings",
        "a tenant's role sees which other tenants have roles",
        (Edit(POLICIES, "'role_name in (session_user, current_user)'", "'true'"),),
        tests=(ROLES + "test_a_bound_role_learns_of_no_other_binding_and_can_change_none",),
    ),
    Mutant(
        "worker-under-policies",
        "the policies are in the statements of the worker",
        (Edit(POLICIES, "alter role waypost_worker bypassrls;", "alter role waypost_worker nobypassrls;"),),
        tests=(ROLES + "test_no_policy_is_in_the_statements_of_the_worker_and_the_owner",),
    ),
    Mutant(
        "tenant-named-for-the-session",
        "a reader's tenant stays on its connection",
        (Edit("waypost.reader.pool:_naming", "'UTF8'), true)", "'UTF8'), false)"),),
        tests=(READERS + "test_no_tenant_stays_on_a_connection",),
    ),
    Mutant(
        "tenant-not-named-in-snapshots",
        "a snapshot does not name the reader's tenant",
        (
            Edit(
                "waypost.reader.pool:ReadPool.snapshot",
                "if self._name_tenant is not None:",
                "if False:",
            ),
        ),
        tests=(READERS + "test_every_read_of_a_session_works_with_a_tenant",),
    ),
    Mutant(
        "empty-tenant",
        "an id that begins with a slash belongs to a tenant without a name",
        (Edit(MODEL + "tenant_of", "if tenant and separator", "if separator"),),
        tests=(UNIT,),
    ),
    Mutant(
        "tenant-scope-by-beginning",
        "a reader of a tenant reads sessions whose ids begin with its name",
        (
            Edit(
                MODEL + "TenantScope.holds",
                "tenant_of(session_id) == self.tenant",
                "session_id.startswith(self.tenant)",
            ),
        ),
        tests=(UNIT,),
    ),
    Mutant(
        "tenant-prefix-widens",
        "a prefix outside of a reader's tenant is listed",
        (Edit(MODEL + "TenantScope.narrowed", "prefix if prefix.startswith(own) else None", "prefix"),),
        tests=(UNIT,),
    ),
)
