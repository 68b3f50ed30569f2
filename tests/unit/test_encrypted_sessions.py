"""Sessions and deployments that accept only encrypted data."""

import pytest
from tests.support.encrypted_data import ENCRYPTED, NEARLY_ENCRYPTED, compact
from tests.unit.life import Life, duplicate_of, expect, item

from waypost.model.commands import Configure, Create, Import, ImportItem, Pin, Rollback
from waypost.model.decisions import Created, Pinned, Rejected, RolledBack
from waypost.model.encrypted_data import is_encrypted
from waypost.model.retention import RetentionPolicy

ONLY_ENCRYPTED = RetentionPolicy(encrypted=True)
REQUIRED = "encryption-required"


@pytest.fixture(params=["session", "deployment", "both"])
def life(request: pytest.FixtureRequest) -> Life:
    made = Life(RetentionPolicy() if request.param == "session" else ONLY_ENCRYPTED)
    if request.param != "deployment":
        made.configures(encrypted=True)
    return made


def encrypted_item(id: str) -> ImportItem:
    return item(id)._replace(data=ENCRYPTED)


def test_encrypted_data_is_accepted(life: Life) -> None:
    expect(Created, life.does(Create("a", ENCRYPTED)))
    assert life.imports(encrypted_item("other:1")).count("imported") == 1
    assert life.names == "a imported"


@pytest.mark.parametrize("data", [b"{}", b'{"clear":"words"}', *NEARLY_ENCRYPTED])
def test_anything_else_is_rejected_and_changes_nothing(life: Life, data: bytes) -> None:
    assert life.refuses(Create("a", data)) == REQUIRED
    assert life.refuses(Import((encrypted_item("other:1"), item("other:2")._replace(data=data)))) == REQUIRED


def test_the_message_says_what_to_do_and_quotes_no_data(life: Life) -> None:
    refused = expect(Rejected, life.does(Create("a", b'{"clear":"words"}')))
    assert (
        refused.message
        == "'s' accepts only encrypted data, and the data is not encrypted: publish it with a codec"
    )
    refused = expect(Rejected, life.does(Import((item("other:1"),))))
    assert refused.message == (
        "'s' accepts only encrypted data, and nothing was imported, as the data of 'other:1' is not encrypted: "
        "publish it with a codec"
    )
    refused = expect(Rejected, life.does(Configure((("encrypted", False),))))
    assert refused.message == (
        "'s' accepts only encrypted data, and stays so: use another session id for data that is not encrypted"
    )


def test_a_session_that_accepts_only_encrypted_data_stays_so(life: Life) -> None:
    assert life.refuses(Configure((("max_checkpoints", 7), ("encrypted", False)))) == REQUIRED
    life.configures(max_checkpoints=7)
    assert life.refuses(Create("a", b"{}")) == REQUIRED


def test_a_session_stays_so_if_the_deployment_does_not() -> None:
    life = Life(ONLY_ENCRYPTED)
    life.configures(max_checkpoints=7)
    life.default = RetentionPolicy()
    assert life.refuses(Create("a", b"{}")) == REQUIRED


def test_the_deployment_decides_for_sessions_with_their_own_policy() -> None:
    life = Life()
    life.configures(max_checkpoints=7)
    life.creates("a")
    life.default = ONLY_ENCRYPTED
    assert life.refuses(Create("a", b"{}")) == REQUIRED


def test_what_was_there_before_stays_and_can_be_pinned_and_rolled_back_to() -> None:
    life = Life()
    life.creates("a", "b")
    life.configures(encrypted=True)
    expect(Pinned, life.does(Pin("s:1")))
    expect(RolledBack, life.does(Rollback("s:1")))
    assert life.names == "a* b"


def test_a_repeated_command_is_a_duplicate_before_it_is_looked_at() -> None:
    life = Life()
    life.does(Create("a", b"{}"), id="once")
    life.configures(encrypted=True)
    assert duplicate_of(life.does(Create("a", b"{}"), id="once")) == 1


def test_all_that_is_written_as_documented_is_encrypted_whatever_the_space_and_the_order() -> None:
    assert is_encrypted(ENCRYPTED)
    assert is_encrypted(compact(ENCRYPTED))
    assert is_encrypted(compact(ENCRYPTED).replace(b"run:7", "ünïcödé".encode()))
    assert is_encrypted(ENCRYPTED.replace(b", ", b" ,\r\n\t ").replace(b'{"waypost', b'{ \n"waypost'))
    assert is_encrypted(ENCRYPTED.replace(b'"v": 1, ', b"").replace(b'"}}', b'", "v": 1}}'))
    assert is_encrypted(ENCRYPTED.replace(b'"by": "create"', b'"by": "import", "origin": "else/where"'))


def test_large_data_that_only_begins_so_is_not_parsed() -> None:
    many = b'{"waypost.encrypted":{' + b",".join(b'"m%d":[{}]' % number for number in range(50_000)) + b"}}"
    assert not is_encrypted(many)
