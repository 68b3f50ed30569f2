"""What telemetry costs, in bytecode instructions beside those of a command: the same on a busy machine."""

from tests.tools.bench.cost import instructions, measure
from tests.unit.test_metrics import CREATE, batch, command

from waypost.wire.event_types import EventType
from waypost_worker.telemetry.health import Health
from waypost_worker.telemetry.metrics import Metrics
from waypost_worker.telemetry.observers import LogObserver, Observers


def test_metrics_and_health_cost_less_than_3_percent_of_a_create() -> None:
    count = 200
    told = batch(*(command(number, EventType.CREATE, CREATE) for number in range(count)))
    observers = Observers(Metrics(), Health(60))

    def tell() -> None:
        observers.applied(0, told)
        observers.emitted(0, told, 0.001)

    tell()  # what is looked up once is known from here on
    assert instructions(tell) / count < 0.03 * measure()["create, instructions"]


def test_a_batch_of_one_costs_telemetry_less_than_half_of_what_folding_it_costs() -> None:
    count = 160  # a few are counted together
    told = batch(command(0, EventType.CREATE, CREATE))
    observers = Observers(LogObserver(), Metrics(), Health(60))

    def tell() -> None:
        for _ in range(count):
            observers.applied(0, told)
            observers.emitted(0, told, 0.001)

    tell()
    assert instructions(tell) / count < measure()["create, instructions"] / 2
