"""The check of ``waypost doctor`` that row-level security binds the roles that it should."""

from typing import Any

from waypost_worker.cli.support.connections import query
from waypost_worker.findings import Finding

_SUBJECT = "tenants"


async def check_tenants(connection: Any, schema: str) -> list[Finding]:
    """Check the roles that read for one tenant; nothing if there are none."""
    row = await connection.fetchrow(query("doctor/tenants", schema), schema)
    return [] if row is None or not row["bound"] + row["named"] else tenant_findings(row)


def tenant_findings(row: Any) -> list[Finding]:
    """Return what undermines row-level security, or else how many roles it binds."""
    found = []
    if row["open"]:
        message = f"waypost_tenant_reader sees the rows of every tenant in {_listed(row['open'])}"
        fix = "have an administrator run the SQL of 'waypost migrate --tenants' again"
        found.append(Finding("error", _SUBJECT, message, fix))
    if row["unbound"]:
        message = f"no policy applies to {_listed(row['unbound'])}, which should read for one tenant"
        fix = "such a role must not be a superuser, own the tables, or have BYPASSRLS: use another one"
        found.append(Finding("error", _SUBJECT, message, fix))
    if row["unlisted"]:
        message = f"{_listed(row['unlisted'])} can read nothing: no tenant is noted in tenant_roles"
        found.append(Finding("warning", _SUBJECT, message, "list them there; see docs/tenants.md"))
    if row["strangers"]:
        message = f"tenant_roles lists {_listed(row['strangers'])}, and no policy binds them to a tenant"
        fix = "grant waypost_tenant_reader to each, or remove it from the list"
        found.append(Finding("warning", _SUBJECT, message, fix))
    if found:
        return found
    message = f"{row['bound']} roles read for one tenant, {row['named']} for the one that a transaction names"
    return [Finding("ok", _SUBJECT, message)]


def _listed(names: list[str]) -> str:
    return ", ".join(map(repr, names))
