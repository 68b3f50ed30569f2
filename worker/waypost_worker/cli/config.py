"""``waypost config``: show the settings in effect."""

from cyclopts import App
from pydantic import SecretStr

from waypost_worker.cli.support.options import NOTHING_GIVEN, Common
from waypost_worker.cli.support.output import DONE, show_rows
from waypost_worker.config.settings import Settings, masked_dsn

app = App(name="config", help="Show the settings and where they come from.")


@app.command
def show(*, common: Common = NOTHING_GIVEN) -> int:
    """Print every setting, its value and where it comes from; secrets are masked.

    A setting is named --like-this as a flag (the four below),
    WAYPOST_LIKE_THIS as a variable, and like_this in waypost.toml (or the file
    that WAYPOST_CONFIG_FILE names). The first that is given wins.

    For example:

      waypost config show
      waypost config show -o json
    """
    settings = common.settings()
    rows = []
    for name, field in Settings.model_fields.items():
        value = getattr(settings, name)
        if name == "postgres_dsn":
            value = masked_dsn(value.get_secret_value())
        elif isinstance(value, SecretStr):
            value = str(value)
        rows.append(
            {"setting": name, "value": value, "from": common.origin(name), "meaning": field.description}
        )
    show_rows(rows, common.output, ("setting", "value", "from"), wrap=("value",))
    return DONE
