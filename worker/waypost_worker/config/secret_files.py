"""Secrets in files: if a setting is a secret, ``{setting}_file`` can name the file that contains it.

Owns reading such files, as the sources of settings name them; knows no setting by its name.
"""

from pathlib import Path
from typing import Any, Final, get_args

from pydantic import JsonValue, SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource
from typing_extensions import override

from waypost.errors import SettingsError

_SUFFIX: Final = "_file"
#: Marks a secret whose file is read by who needs it. A worker must start although it may not read this one.
READ_LATER: Final[dict[str, JsonValue]] = {"read_later": True}


def file_setting(name: str) -> str:
    """The setting that names the file of a secret."""
    return name + _SUFFIX


def is_secret(field: FieldInfo) -> bool:
    """Return whether a setting is a secret."""
    return SecretStr in (field.annotation, *get_args(field.annotation))


class SecretFiles(PydanticBaseSettingsSource):
    """The secrets that another source names files for. A secret given at the same place wins over its file."""

    def __init__(self, settings_cls: type[BaseSettings], source: PydanticBaseSettingsSource) -> None:
        super().__init__(settings_cls)
        self._source = source

    @override
    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Not used: this kind of source returns all values in one call."""
        return None, field_name, False

    @override
    def __call__(self) -> dict[str, Any]:
        """The secrets by setting; SettingsError where a file can't be read or is empty."""
        named = self._source()
        fields = self.settings_cls.model_fields.items()
        secrets = [
            name for name, field in fields if is_secret(field) and field.json_schema_extra != READ_LATER
        ]
        return {
            name: _content(file_setting(name), named[file_setting(name)])
            for name in secrets
            if named.get(file_setting(name)) and name not in self.current_state
        }


def _content(setting: str, path: str) -> str:
    try:
        content = Path(path).read_text().strip()
    except OSError as error:
        raise SettingsError(f"{setting} names {path}, which can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{setting} names {path}, which is not UTF-8 text") from None
    if not content:
        raise SettingsError(f"{setting} names {path}, which is empty")
    return content
