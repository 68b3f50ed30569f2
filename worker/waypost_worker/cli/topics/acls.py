"""``waypost topics acls``: the permissions that each kind of client needs at the brokers."""

from dataclasses import asdict
from typing import Annotated

from cyclopts import Parameter

from waypost_worker.cli.support.options import NOTHING_GIVEN, Common
from waypost_worker.cli.support.output import DONE, USAGE, CommandError, show_rows, write
from waypost_worker.kafka.acls import ROLES, Role, command_lines, least_acls


def acls(
    *roles: Role,
    agent: Annotated[str, Parameter(help="principal of the agents")] = "User:waypost-agent",
    subscriber: Annotated[str, Parameter(help="principal of the subscribers")] = "User:waypost-subscriber",
    worker: Annotated[str, Parameter(help="principal of the workers")] = "User:waypost-worker",
    console: Annotated[str, Parameter(help="principal of the console")] = "User:waypost-console",
    operator: Annotated[str, Parameter(help="principal of operators")] = "User:waypost-operator",
    subscriber_groups: Annotated[str, Parameter(help="prefix of the subscribers' groups")] = "waypost-sub",
    common: Common = NOTHING_GIVEN,
) -> int:
    """Print the least ACLs that each kind of client needs.

    These are agents, subscribers, workers, the console and operators.

    Without ROLES, all of them are printed, as lines for Kafka's kafka-acls.sh.
    Nothing is changed, and no broker is contacted: an administrator of the
    cluster runs them. How to set up the rest: docs/security.md.

    For example:

      waypost topics acls

      waypost topics acls agent --agent User:CN=planner --topic-prefix prod

      waypost topics acls worker -o json
    """
    settings = common.settings()
    principals: dict[Role, str] = {
        "agent": agent,
        "subscriber": subscriber,
        "worker": worker,
        "console": console,
        "operator": operator,
    }
    for role, principal in principals.items():
        if ":" not in principal:
            raise CommandError(
                f"--{role} {principal}: a principal is a type and a name, such as User:{principal}", USAGE
            )
    found = least_acls(settings.topics, settings.group_id, subscriber_groups)
    wanted = [acl for acl in found if acl.role in (roles or ROLES)]
    if common.output == "table":
        write("".join(f"{line}\n" for line in command_lines(wanted, principals, settings.bootstrap_servers)))
    else:
        rows = [{**asdict(acl), "principal": principals[acl.role]} for acl in wanted]
        show_rows(rows, common.output, ())
    return DONE
