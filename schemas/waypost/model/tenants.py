"""Which tenant a session belongs to: the first segment of its id, as in ``acme/run-1``. Pure."""

from dataclasses import dataclass
from typing import Final

from waypost.arguments import require_text
from waypost.errors import AccessDeniedError, InvalidArgumentError, quoted
from waypost.model.limits import MAX_SESSION_ID, text_problem

SEPARATOR: Final = "/"
_AFTER_SEPARATOR: Final = chr(ord(SEPARATOR) + 1)
MAX_TENANT: Final = MAX_SESSION_ID - 1  # characters, and the separator follows


def tenant_of(session_id: str) -> str | None:
    """Return the tenant of a session: what its id has before the first ``/``.

    None if the id has no ``/`` or begins with one: such a session belongs to no tenant. Tenants are compared
    character by character: ``Acme`` and ``acme`` are two, and so are a composed and a decomposed ``é``.

    Raises:
        InvalidArgumentError: It is not text.
    """
    require_text("a session id", session_id)
    tenant, separator, _ = session_id.partition(SEPARATOR)
    return tenant if tenant and separator else None


def check_tenant(tenant: str) -> str:
    """Return ``tenant``. Raise InvalidArgumentError if no session id can begin with it and ``/``."""
    require_text("a tenant", tenant)
    problem = text_problem(tenant, MAX_TENANT)
    if problem is None and SEPARATOR in tenant:
        problem = f"contains {SEPARATOR!r}, which ends a tenant's name"
    if problem is not None:
        raise InvalidArgumentError(f"The tenant {quoted(tenant)} {problem}. Nothing was read or changed.")
    return tenant


def tenant_prefix(tenant: str) -> str:
    """Return what the ids of a tenant's sessions begin with, such as ``acme/``.

    Raises:
        InvalidArgumentError: No tenant can have this name.
    """
    return check_tenant(tenant) + SEPARATOR


def tenant_range(tenant: str) -> tuple[str, str]:
    """Return the bounds of a tenant's session ids: they sort at or after the first and before the second.

    Raises:
        InvalidArgumentError: No tenant can have this name.
    """
    return tenant_prefix(tenant), check_tenant(tenant) + _AFTER_SEPARATOR


@dataclass(frozen=True, slots=True)
class TenantScope:
    """Sessions that may be read: those of one tenant, or all of them if ``tenant`` is None."""

    tenant: str | None = None

    def __post_init__(self) -> None:
        if self.tenant is not None:
            check_tenant(self.tenant)

    def holds(self, session_id: str | None) -> bool:
        """Tell whether a session is one of them. None, a command that names no session, belongs to no tenant."""
        return self.tenant is None or (session_id is not None and tenant_of(session_id) == self.tenant)

    def require(self, session_id: str) -> None:
        """Raise AccessDeniedError if a session is not one of them."""
        if not self.holds(session_id):
            raise AccessDeniedError(
                f"The session {quoted(session_id)} does not belong to the tenant {quoted(self.tenant)}, whose "
                f"sessions begin with {quoted(f'{self.tenant}{SEPARATOR}')}. Nothing was read or changed."
            )

    @property
    def bounds(self) -> tuple[str | None, str | None]:
        """The first session id that may be one of them and the first after them, as :func:`tenant_range`; or None."""
        return (None, None) if self.tenant is None else tenant_range(self.tenant)

    def narrowed(self, prefix: str) -> str | None:
        """Return the prefix of those among them that begin with ``prefix``; None if none of them can."""
        if self.tenant is None:
            return prefix
        own = self.tenant + SEPARATOR
        if own.startswith(prefix):
            return own
        return prefix if prefix.startswith(own) else None
