"""A broker that lacks acknowledged commands becomes the leader, and its log grows past what it lost.

Breaks: one of the two replicas of the command topic stands still. The other one acknowledges commands alone, which a
worker applies, and is killed. The one that stood still becomes the leader by an unclean election, and a producer with
a backlog fills its log past the worker's position before the worker fetches again.
Must hold: no command of the new leader is skipped; the partition is refused, with words that say what happened; what
was applied before is whole.
"""

from collections.abc import Iterator

import pytest
from tests.support.servers import started

from waypost_worker.devserver import ClusterOptions, EmbeddedKafka

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedKafka]:
    with started(EmbeddedKafka(tmp_path_factory.mktemp("cut"), ClusterOptions(nodes=3))) as made:
        yield made
