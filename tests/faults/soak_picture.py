"""The picture of a soak: memory, tasks and files of each worker, and the lag, with every fault marked."""

from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("agg")
from matplotlib import pyplot as plt
from matplotlib.patches import Rectangle

PANELS = (
    ("resident_mb", "resident memory, MB"),
    ("tasks", "asyncio tasks"),
    ("files", "open files"),
)


def draw(found: dict[str, Any], path: Path) -> None:
    """Draw what build/soak.json says."""
    samples, events = found["samples"], found["events"]
    figure, axes = plt.subplots(4, 1, sharex=True, figsize=(13, 11), constrained_layout=True)
    names = sorted(
        {name for sample in samples for name in sample["workers"]}, key=lambda name: (len(name), name)
    )
    for axis, (what, title) in zip(axes, PANELS, strict=False):
        for name in names:
            points = [
                (sample["at"], sample["workers"][name][what])
                for sample in samples
                if what in sample["workers"].get(name, {})
            ]
            if points:
                eldest = name == "worker-1"
                axis.plot(
                    *zip(*points, strict=True), lw=2 if eldest else 0.8, color="black" if eldest else None
                )
        axis.set_ylabel(title)
        axis.set_ylim(bottom=0)
    axes[3].plot(
        [sample["at"] for sample in samples], [sample["lag"] for sample in samples], color="tab:blue"
    )
    axes[3].set_ylabel("commands without a result")
    axes[3].set_xlabel("seconds")
    kinds = sorted({event["kind"] for event in events})
    colours = {kind: plt.get_cmap("tab20")(number % 20) for number, kind in enumerate(kinds)}
    for event in events:
        for axis in axes:
            axis.axvspan(
                event["at"],
                event.get("healed_at", event["at"]) + 0.5,
                color=colours[event["kind"]],
                alpha=0.25,
            )
    handles = [Rectangle((0, 0), 1, 1, color=colours[kind], alpha=0.4) for kind in kinds]
    figure.legend(handles, kinds, loc="outside lower center", ncols=5, fontsize=8)
    figure.suptitle(
        f"{found['commands']} commands, {len(events)} faults: {found['lost']} lost, {found['doubled']} doubled, "
        f"{found['out_of_order']} out of order, {found['stuck']} stuck (thick: the worker that lived through all)"
    )
    figure.savefig(path, dpi=90)
    plt.close(figure)
