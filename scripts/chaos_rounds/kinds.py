"""All kinds of faults: when each is due, how often it is chosen, and where it fits; and the plan of a round."""

from __future__ import annotations

import argparse
import random
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Literal

from scripts.chaos_rounds import clocks, damages, disks, kills, namespace, networks, packages, pauses
from scripts.chaos_rounds.scene import Scene

# Before a start; right after one; while the run works; from then until the run publishes its snapshot.
Moment = Literal["rest", "start", "work", "publishing"]
Act = Callable[[Scene], str | None]
Inject = Callable[[Scene], AbstractContextManager[str | None]]
TITLES = {"actor": "ray::Worker", "task": "ray::p"}  # how Ray's processes are called; tasks are `prepare` and `publish`
LEASE_SECONDS, STALL_SECONDS = 3, 4  # of the runs of a round; pauses take longer


@dataclass(frozen=True)
class Kind:
    """`inject` yields what it has disturbed, or None where there was nothing to disturb."""

    name: str
    moment: Moment
    weight: int  # how often it is chosen, relative to the others
    inject: Inject
    seconds: tuple[float, float] = (0, 0)  # how long it lasts
    needs: str = ""  # what a round must have for it: see `fitting`
    says: str = ""  # a regular expression: the line of a run that refuses to go on after it; empty: no run refuses

    @property
    def family(self) -> str:
        return self.name.split("-", 1)[0]


def at_once(act: Act) -> Inject:
    """A fault that is over as soon as it has happened."""

    @contextmanager
    def inject(scene: Scene) -> Iterator[str | None]:
        yield act(scene)

    return inject


ACTORS = "actors in a row were lost"  # how a run ends whose actors die as fast as they start
PAUSE, CUT = (1.2 * STALL_SECONDS, 2.0 * STALL_SECONDS), (1.0, 8.0)
KINDS = [
    Kind("kill-actor", "work", 5, at_once(kills.one_process(TITLES["actor"])), says=ACTORS),
    Kind("kill-task", "work", 3, at_once(kills.one_process(TITLES["task"])), needs="tasks"),
    Kind("kill-node", "work", 2, at_once(kills.node), says=ACTORS),
    Kind("kill-driver", "work", 2, at_once(kills.driver)),
    Kind("kill-start", "start", 2, at_once(kills.driver_at_start)),
    Kind("kill-publishing", "publishing", 3, at_once(kills.driver_while_publishing)),
    Kind("pause-actor", "work", 2, pauses.one_process(TITLES["actor"]), PAUSE, says=ACTORS),
    Kind("pause-task", "work", 2, pauses.one_process(TITLES["task"]), PAUSE, needs="tasks"),
    Kind("pause-driver", "work", 2, pauses.driver, PAUSE, says="gave no sign of life"),
    Kind("disk-full", "work", 3, disks.full, CUT, needs="disk", says="No space left on device"),
    Kind("clock-driver", "rest", 2, at_once(clocks.driver)),
    Kind("clock-node", "work", 2, at_once(clocks.node), says=ACTORS),
    Kind("network-refuse", "work", 3, networks.cut("refuse"), CUT, needs="proxy", says="connect|Connect"),
    Kind("network-hang", "work", 3, networks.cut("hang"), CUT, needs="proxy", says="time|Time|connect|Connect"),
    Kind("package-other", "work", 2, packages.other, CUT, says=f"install the same version|{ACTORS}"),
    Kind("damage-rest", "rest", 4, at_once(damages.of("damage-rest")), says="damaged|missing|unreadable|gone"),
    Kind("damage-live", "work", 3, at_once(damages.of("damage-live")), says="damaged|missing|unreadable|gone"),
]
BY_NAME = {kind.name: kind for kind in KINDS}


def named(text: str) -> list[Kind]:
    """The kinds of a comma-separated list of names and families. Raises ValueError for a name that is neither."""
    found = []
    for name in text.split(","):
        of_name = [kind for kind in KINDS if name in (kind.name, kind.family)]
        if not of_name:
            raise argparse.ArgumentTypeError(f"{name}: no such kind; there are {', '.join(BY_NAME)}")
        found += of_name
    return found


def fitting(options: argparse.Namespace) -> set[str]:
    """What this round has for the kinds that need something."""
    has = {"": True, "tasks": options.layout == "split", "proxy": options.s3}
    has |= {"disk": not options.s3 and (namespace.is_own_namespace() or namespace.can_mount())}
    return {need for need, there in has.items() if there}


def plan_of(options: argparse.Namespace) -> deque[Kind]:
    """The faults of the round in their order: those of `--plan`, or random ones of `--kinds`."""
    has = fitting(options)
    asked = options.plan or options.kinds or [kind for kind in KINDS if kind.needs in has]
    for kind in asked:
        if kind.needs not in has:
            raise SystemExit(f"chaos: {kind.name} needs {NEEDS[kind.needs]}")
    if options.plan:
        return deque(options.plan)
    chance = random.Random(options.seed)  # noqa: S311
    return deque(chance.choices(asked, [kind.weight for kind in asked], k=options.faults))


NEEDS = {
    "tasks": "--layout split: in the fused layout there are no tasks",
    "proxy": "--s3: there is no network to a local folder",
    "disk": "local files, and `unshare --user --mount`, which this host does not allow",
}
