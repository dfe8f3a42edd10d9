"""Start and delete pods on a lab's node. `main` is the part that runs there, with root's rights on the node alone.

A pod is a network namespace that the node's CNI conf attaches, as a container runtime would. The operator's side calls
`start` and `delete`.
"""

import os
import re
import sys

from cnictl.core.errors import Problem, UsageProblem
from cnictl.core.process import run
from cnictl.lab.lab import Node, program
from cnictl.probe import chain

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
"""A label of RFC 1123, as Kubernetes wants it for namespaces."""
_SECONDS = 60.0


def full_name(text: str) -> str:
    """Return a pod's NAMESPACE/NAME; the namespace is `default` if the text has none. Raises UsageProblem."""
    namespace, slash, name = text.rpartition("/")
    parts = (namespace if slash else "default", name)
    if not all(map(_NAME.fullmatch, parts)):
        raise UsageProblem(f"pod {text!r}: use NAME or NAMESPACE/NAME of lower-case letters, digits and '-'")
    return "/".join(parts)


def netns_of(pod: str) -> str:
    """Return the name of a pod's network namespace, which is also its container id."""
    return pod.replace("/", "_")


def start(node: Node, pod: str) -> list[str]:
    """Start a pod (NAMESPACE/NAME) on a node and return its addresses. Raises Problem."""
    return _on_node(node, "ADD", pod)


def delete(node: Node, pod: str) -> None:
    """Delete a pod of a node. Raises Problem."""
    _on_node(node, "DEL", pod)


def _on_node(node: Node, verb: str, pod: str) -> list[str]:
    done = node.run([*program("cluster.lab_pod"), verb, pod], timeout=_SECONDS, check=False)
    if done.status:
        message, _, hint = done.stderr.strip().partition("\n")
        raise Problem(f"{node.name}: {message or f'exit status {done.status}'}", hint)
    return done.stdout.split()


def main() -> None:
    """Call the plugins for a pod on this node (`ADD POD` or `DEL POD`); print its addresses, or an error and a hint."""
    verb, pod = sys.argv[1:]
    try:
        if verb == "ADD":
            print("\n".join(_add(pod)))
        else:
            _delete(pod)
    except Problem as problem:
        print(problem.message, problem.hint, sep="\n", file=sys.stderr)
        sys.exit(1)


def _add(pod: str) -> list[str]:
    if os.path.exists(_attachment(pod).netns):
        raise Problem(f"pod {pod} already runs")
    if not os.path.exists(chain.CONF_FILE):
        raise Problem("this host is not set up as a node yet: it has no CNI conf", "run cnictl init-node there")
    plugins = chain.load_chain()
    run(["ip", "netns", "add", netns_of(pod)])
    try:
        run(["ip", "-n", netns_of(pod), "link", "set", "lo", "up"])
        return chain.addresses(plugins.add(_attachment(pod)))
    except Problem:
        try:
            plugins.delete(_attachment(pod), None)
        except Problem:
            pass  # the failed ADD is the error to report
        run(["ip", "netns", "delete", netns_of(pod)])
        raise


def _delete(pod: str) -> None:
    if not os.path.exists(_attachment(pod).netns):
        raise Problem(f"there is no pod {pod}")
    chain.load_chain().delete(_attachment(pod), None)
    run(["ip", "netns", "delete", netns_of(pod)])


def _attachment(pod: str) -> chain.Attachment:
    namespace, _, name = pod.partition("/")
    container = netns_of(pod)
    args = chain.kubernetes_args(namespace, name, container)
    return chain.Attachment(container, f"/run/netns/{container}", args=args)
