"""The second thaw path of a node: lets containers go on whose lease has ended, whatever became of the agent.

Needs uid 0 and no capability: the freezer's files belong to root. Standard library only.
"""

from __future__ import annotations

import logging
import threading
import time

from torpor_hub.agent.leases import Leases
from torpor_hub.errors import PlaceError
from torpor_hub.processes.cgroups import Cgroups

LOG = logging.getLogger(__name__)
EVERY_S = 1.0


def keep_watch(cgroups: Cgroups, leases: Leases, ending: threading.Event) -> None:
    """Thaw what is past its deadline or has no lease, until ``ending`` is set; then thaw the rest, and return.

    What the platform may be removing stays frozen after that too, until its lease ends or it is gone: a removal that finds it
    thawed would lose what was written since it was saved.
    """
    while True:
        last = ending.is_set()
        frozen = look(cgroups, leases, only_promised=last)
        if last and not frozen:
            return
        if last:
            time.sleep(EVERY_S)
        else:
            ending.wait(EVERY_S)


def look(cgroups: Cgroups, leases: Leases, *, only_promised: bool = False) -> int:
    """Thaw once what has no right to be frozen, and return how many of this installation's containers stay frozen.

    With ``only_promised`` that right needs the platform's knowledge too. Other installations on the node have their own second
    path, but write their leases into the same folder.
    """
    frozen = cgroups.frozen()
    stay = 0
    for container, group in frozen.items():
        lease = leases.read(container)
        if lease is not None and lease.left_s > 0 and not leases.is_own(lease):
            continue
        if lease is not None and lease.left_s > 0 and (lease.promised or not only_promised):
            stay += 1
            continue
        try:
            cgroups.thaw(group)
        except PlaceError as error:
            LOG.error("%s: %s", container, error)
            stay += 1
            continue
        LOG.warning("thawed %s: %s", container, "its lease has ended" if lease else "it has no lease")
        leases.end(container)
    for lease in leases.all():
        if lease.container not in frozen and (lease.left_s <= 0 or cgroups.find(lease.container) is None):
            leases.end(lease.container)
    return stay
