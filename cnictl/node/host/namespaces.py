"""Find the path of a network namespace from a veth that leads into it, if no record has the path."""

import glob
import os
from itertools import chain

from cnictl.core.netlink import rtnetlink, veth_peer
from cnictl.core.netlink.rtnetlink import Netlink
from cnictl.core.netns import identity

_PLACES = ("/run/netns/*", "/run/docker/netns/*", "/proc/[0-9]*/ns/net")
"""The paths of the namespaces that runtimes name, then those of every process."""


def path_behind(link_name: str) -> str:
    """Return a path of the namespace that a veth of the host leads into; empty if there is none."""
    seen = set()
    with Netlink() as netlink:
        link = rtnetlink.get_link(netlink, link_name)
        if link is None or not link.peer_namespace:
            return ""
        for path in chain.from_iterable(sorted(glob.glob(place)) for place in _PLACES):
            namespace = identity(path)
            if namespace is None or namespace in seen:
                continue
            seen.add(namespace)
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                continue
            try:
                if veth_peer.namespace_id(netlink, descriptor) == link.peer_namespace:
                    return path
            finally:
                os.close(descriptor)
    return ""
