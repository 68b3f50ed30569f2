"""All mutants: protocol, model, clients, recovery, ports on real servers, adapters, tenants and encryption."""

from tests.mutants.catalogue.adapters import ADAPTERS
from tests.mutants.catalogue.client import CLIENT
from tests.mutants.catalogue.commits import COMMITS
from tests.mutants.catalogue.encryption import ENCRYPTION
from tests.mutants.catalogue.erasure import ERASURE
from tests.mutants.catalogue.kafka import KAFKA
from tests.mutants.catalogue.model import MODEL
from tests.mutants.catalogue.postgres import POSTGRES
from tests.mutants.catalogue.protocol import PROTOCOL
from tests.mutants.catalogue.recovery import RECOVERY
from tests.mutants.catalogue.takeovers import TAKEOVERS
from tests.mutants.catalogue.tenants import TENANTS
from tests.mutants.catalogue.terms import TERMS
from tests.mutants.mutant import Mutant

MUTANTS: tuple[Mutant, ...] = (
    *PROTOCOL,
    *TERMS,
    *MODEL,
    *ERASURE,
    *CLIENT,
    *RECOVERY,
    *POSTGRES,
    *KAFKA,
    *COMMITS,
    *TAKEOVERS,
    *ADAPTERS,
    *TENANTS,
    *ENCRYPTION,
)


def named(name: str) -> Mutant:
    """The mutant of this name; LookupError if there is none."""
    for mutant in MUTANTS:
        if mutant.name == name:
            return mutant
    raise LookupError(f"no mutant is called {name!r}; there are {', '.join(one.name for one in MUTANTS)}")
