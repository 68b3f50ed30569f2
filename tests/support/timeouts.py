"""How long a test waits for what is sure to come: so long that only a hang misses it, on a slow machine too.

It is no measure of anything. Where a test proves that something ends in time, the time is its own and says why.
"""

from typing import Final

#: Seconds.
PATIENCE: Final = 60
