"""Make the container runtime interface calls that pods need, as the kubelet does.

The field numbers are those of Kubernetes' runtime/v1 api.proto.
"""

import uuid
from dataclasses import dataclass

import grpc

from tests.waiting import wait_for

from . import image
from .machine import Failed
from .wire import Fields, Message, Value, decode, encode

BOUND = 60.0


@dataclass(frozen=True)
class Sandbox:
    """A running pod: the runtime's ID for it, its configuration and its address."""

    id: str
    config: Message
    address: str


class Cri:
    """A connection to one runtime's socket."""

    def __init__(self, socket: str, cgroup_parent: str) -> None:
        self._cgroup_parent = cgroup_parent
        self._channel = grpc.insecure_channel(f"unix://{socket}", options=[("grpc.default_authority", "localhost")])

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def call(self, method: str, request: Message) -> Fields:
        """Call a method of the RuntimeService. Raises grpc.RpcError with the runtime's message."""
        invoke = self._channel.unary_unary(f"/runtime.v1.RuntimeService/{method}", encode, decode)
        answer = invoke(request, timeout=BOUND)
        assert isinstance(answer, Fields)
        return answer

    def wait_until_ready(self) -> None:
        """Wait until the runtime answers, because its socket opens before it has recovered its sandboxes."""

        def answers() -> bool:
            try:
                self.call("ListPodSandbox", {})
            except grpc.RpcError:
                return False
            return True

        wait_for(answers, "the CRI's first answer", 20)

    def network_ready(self) -> bool:
        """Return the runtime's NetworkReady condition: whether it has found a CNI conf that it can use."""
        conditions = self.call("Status", {}).message(1).messages(1)
        return any(condition.text(1) == "NetworkReady" and condition.number(2) for condition in conditions)

    def run_sandbox(self, name: str, host_ports: dict[int, int] | None = None) -> Sandbox:
        """Run a pod sandbox, and publish `host_ports` (host port: pod port)."""
        ports: list[str | Message] = [{2: pod, 3: host} for host, pod in (host_ports or {}).items()]
        config: dict[int, Value] = {
            1: {1: name, 2: str(uuid.uuid4()), 3: "default"},
            2: name,
            3: "/var/log/pods",
            5: ports,
            8: {1: self._cgroup_parent},
        }
        sandbox = self.call("RunPodSandbox", {1: config}).text(1)
        return Sandbox(sandbox, config, self.address(sandbox))

    def address(self, sandbox: str) -> str:
        """Return the sandbox's address as the runtime reports it; empty once it is stopped."""
        return self.call("PodSandboxStatus", {1: sandbox}).message(1).message(5).text(1)

    def run_container(self, sandbox: Sandbox, *command: str) -> str:
        """Create and start a container of the test image in a sandbox, and return its ID."""
        config: Message = {1: {1: "main"}, 2: {1: image.NAME}, 3: command}
        request: Message = {1: sandbox.id, 2: config, 3: sandbox.config}
        container = self.call("CreateContainer", request).text(1)
        self.call("StartContainer", {1: container})
        return container

    def run_sleeper(self, sandbox: Sandbox) -> str:
        """Run an idle container in the sandbox, for running commands in, and return its ID."""
        return self.run_container(sandbox, "sleep", "100000")

    def expect_ping(self, container: str, *addresses: str) -> None:
        """Raise Failed unless each address answers the container's ping."""
        for address in addresses:
            self.run_in(container, "ping", "-c", "1", "-W", "2", address)

    def run_in(self, container: str, *command: str) -> str:
        """Run a command in the container and return its stdout. Raises Failed if it failed."""
        answer = self.call("ExecSync", {1: container, 2: command, 3: 20})
        if answer.number(3) != 0:
            raise Failed(f"{' '.join(command)}: exit status {answer.number(3)}\n{answer.text(1)}{answer.text(2)}")
        return answer.text(1)

    def sandboxes(self) -> list[str]:
        """Return the IDs of all sandboxes that the runtime knows, running or stopped."""
        return [sandbox.text(1) for sandbox in self.call("ListPodSandbox", {}).messages(1)]

    def stop(self, sandbox: str) -> None:
        """Stop a sandbox and its containers. The runtime calls DEL."""
        self.call("StopPodSandbox", {1: sandbox})

    def end(self, *sandboxes: str) -> None:
        """End pods as the kubelet does, which stops a sandbox more than once before it removes it."""
        for sandbox in sandboxes:
            self.stop(sandbox)
            self.stop(sandbox)
            self.call("RemovePodSandbox", {1: sandbox})
