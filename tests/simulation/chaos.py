"""What goes wrong in a world while agents are at work, chosen by its plan."""

from tests.simulation.world import World


async def chaos(world: World) -> None:
    """Nothing yet."""
