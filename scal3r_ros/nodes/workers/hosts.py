"""Which machine runs how many workers: the launch argument `workers:=host:gpus,...`."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass

_HERE = ("localhost", "127.0.0.1")


@dataclass(frozen=True)
class WorkerHosts:
    """Machines in the order given; the first one also runs mapping_node and context_sync_node."""

    gpus: Mapping[str, int]
    """By machine, name or address."""

    @property
    def first(self) -> str:
        return next(iter(self.gpus))

    @property
    def total(self) -> int:
        return sum(self.gpus.values())

    @property
    def others(self) -> list[str]:
        """Machines beside the first one that have work to do."""
        return [host for host, count in list(self.gpus.items())[1:] if count]

    @property
    def address(self) -> str:
        """Where the others find the rendezvous; empty if one machine does everything."""
        return self.first if self.others else ""

    def own(self, given: str) -> str:
        """Entry of this machine: `given` by the user, else the one with its host name."""
        name = given or socket.gethostname()
        short = name.partition(".")[0]
        for host in self.gpus:
            if host == name or not given and (host in _HERE or host.partition(".")[0] == short):
                return host
        raise ValueError(
            f"this machine ({name}) is not in workers:={self}; add it, or say with host:= which "
            f"entry it is"
        )

    def __str__(self) -> str:
        return ",".join(f"{host}:{count}" for host, count in self.gpus.items())


def parse_hosts(text: str) -> WorkerHosts:
    """`alpha:2,beta:4` to machines; a machine without a number has one GPU."""
    gpus: dict[str, int] = {}
    for entry in text.split(","):
        found = re.fullmatch(r"\s*([\w.-]+)(?::(\d+))?\s*", entry)
        if not found:
            raise ValueError(
                f"workers:={text} is not a list of host:gpus; write for instance "
                f"workers:=alpha:2,beta:4"
            )
        host, count = found.groups()
        if host in gpus:
            raise ValueError(f"workers:={text} names {host} twice; add up its GPUs")
        gpus[host] = int(count or 1)
    if len(gpus) > 1 and set(gpus) & set(_HERE):
        raise ValueError(
            f"workers:={text}: with several machines each needs a name or address that the others "
            f"reach, not localhost"
        )
    if not sum(gpus.values()):
        raise ValueError(f"workers:={text} has no GPU at all; give at least one machine a number")
    return WorkerHosts(gpus)


def node_prefix(host: str) -> str:
    """Start of the namespaces of a machine's workers."""
    return re.sub(r"\W", "_", f"gpu_{host}") + "_"
