"""Add, check and delete many pods with several workers at once, and check who has which address.

    python -m tests.faults.storm                 # 500 pods, 8 workers, ours and the reference (`make storm`)

Every call is a separate process. A pod holds its address from the end of its ADD to the start of its DEL, and no two
pods may hold the same address at once. At the end, exactly the attached pods have leases; once they are detached, no
lease is left.
"""

import argparse
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from tests.faults.inside import Inside, processes_inside
from tests.kernel.plugin.client import Answer, Host, Json, Pod, new_host, plugin_executable

REFERENCE = "/usr/lib/cni/bridge"


@dataclass
class Storm:
    """The results of a storm."""

    calls: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    failures: list[str] = field(default_factory=list)
    holders: dict[str, str] = field(default_factory=dict)
    """The container that holds each address."""
    results: dict[str, Json] = field(default_factory=dict)
    """The ADD result of each attached container."""

    @property
    def rate(self) -> float:
        """The number of calls per second."""
        return sum(self.calls.values()) / self.seconds


class Worker:
    """One of the runtime's threads, with its own pods."""

    def __init__(self, storm: Storm, lock: threading.Lock, host: Host, calls: Inside, program: str, conf: Json) -> None:
        self._storm, self._lock, self._host = storm, lock, host
        self._calls, self._program, self._conf = calls, program, conf

    def work(self, pods: Sequence[Pod], seed: int) -> None:
        """Attach each pod that is not attached. Check half of the others, and detach the rest, by chance."""
        dice = random.Random(seed)
        for pod in dice.sample(pods, len(pods)):
            if pod.container not in self._storm.results:
                self.add(pod)
            elif dice.random() < 0.5:
                self.check(pod)
            else:
                self.delete(pod)

    def add(self, pod: Pod) -> None:
        """Attach a pod, and record it as the holder of its addresses."""
        answer = self._call("ADD", pod)
        if answer.status:
            return
        with self._lock:
            self._storm.results[pod.container] = answer.result
            for address in addresses(answer.result):
                other = self._storm.holders.setdefault(address, pod.container)
                if other != pod.container:
                    self._storm.failures.append(f"{pod.container} and {other} have {address}")

    def check(self, pod: Pod) -> None:
        """Check a pod against its ADD result."""
        self._call("CHECK", pod)

    def delete(self, pod: Pod) -> None:
        """Detach a pod. Another pod may get its address before the call returns."""
        result = self._storm.results[pod.container]
        with self._lock:
            for address in addresses(result):
                self._storm.holders.pop(address, None)
        if self._call("DEL", pod).status == 0:
            del self._storm.results[pod.container]

    def delete_all(self, pods: Sequence[Pod]) -> None:
        """Detach each of these pods."""
        for pod in pods:
            self.delete(pod)

    def _call(self, verb: str, pod: Pod) -> Answer:
        stdin = self._host.stdin(self._conf, self._storm.results.get(pod.container))
        answer = self._calls.call(self._host.environment(verb, pod), stdin, [self._program])
        with self._lock:
            self._storm.calls[verb] += 1
            if answer.status:
                self._storm.failures.append(f"{verb} of {pod.container}: {answer.stdout!r} {answer.stderr!r}")
        return answer


def addresses(result: Json) -> list[str]:
    """Return the addresses of an ADD's result."""
    return [str(ip["address"]).partition("/")[0] for ip in result["ips"]]


@contextmanager
def crew(host: Host, conf: Json, told: Storm, workers: int, program: str = "") -> Iterator[list[Worker]]:
    """Yield a storm's workers, which call `program` (default: the plugin under test)."""
    executable = program or plugin_executable()
    with ExitStack() as stack:
        lock = threading.Lock()
        callers = [stack.enter_context(processes_inside(host)) for _ in range(workers)]
        yield [Worker(told, lock, host, calls, executable, conf) for calls in callers]


def storm(workers: Sequence[Worker], told: Storm, pods: Sequence[Pod], turn: int) -> None:
    """Make one call for each pod, chosen by chance, and leave the pods as they are then. Each turn differs."""
    started = time.monotonic()
    with ThreadPoolExecutor(len(workers)) as pool:
        shares = [pool.submit(worker.work, pods[n :: len(workers)], turn * 100 + n) for n, worker in enumerate(workers)]
        for share in shares:
            share.result()
    told.seconds += time.monotonic() - started


def clear(workers: Sequence[Worker], told: Storm, pods: Sequence[Pod]) -> None:
    """Detach all pods that are still attached."""
    attached = [pod for pod in pods if pod.container in told.results]
    with ThreadPoolExecutor(len(workers)) as pool:
        shares = [pool.submit(worker.delete_all, attached[n :: len(workers)]) for n, worker in enumerate(workers)]
        for share in shares:
            share.result()


def judge(host: Host, told: Storm, network: str) -> list[str]:
    """Return the failed calls, and the addresses whose lease does not match the attached pod."""
    leased = {address: owner.partition("\r\n")[0] for address, owner in host.leases(network).items()}
    unlike = [address for address in leased.keys() | told.holders if leased.get(address) != told.holders.get(address)]
    lost = (
        f"{address}: leased to {leased.get(address)}, held by {told.holders.get(address)}" for address in sorted(unlike)
    )
    return [*told.failures, *lost]


def _confs(masquerade: bool) -> dict[str, tuple[str, Json]]:
    ipam = {"type": "host-local", "subnet": "10.244.0.0/23", "routes": [{"dst": "0.0.0.0/0"}]}
    common = {"cniVersion": "1.0.0", "name": "mynet", "bridge": "cni0", "isGateway": True, "ipMasq": masquerade}
    return {
        "cnictl-bridge": ("", {**common, "type": "cnictl-bridge", "ipam": ipam}),
        "reference": (REFERENCE, {**common, "type": "bridge", "ipam": ipam}),
    }


def main() -> None:
    """Run storms of both plugins in turn, each on its own host, and exit with status 1 if ours failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.storm", description="See the module's docstring.")
    parser.add_argument("--pods", type=int, default=500)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--turns", type=int, default=4, help="calls for each pod (default 4)")
    parser.add_argument("--masquerade", action="store_true", help="with ipMasq")
    options = parser.parse_args()
    status = 0
    with ExitStack() as stack:
        sides = []
        for name, (program, conf) in _confs(options.masquerade).items():
            host, told = stack.enter_context(new_host()), Storm()
            workers = stack.enter_context(crew(host, conf, told, options.workers, program))
            sides.append((name, host, told, workers, host.pods(options.pods)))
        for turn in range(options.turns):
            for _, _, told, workers, pods in sides:
                storm(workers, told, pods, turn)
        for name, host, told, workers, pods in sides:
            counts = ", ".join(f"{count} {verb}" for verb, count in sorted(told.calls.items()))
            print(f"{name}: {counts} in {told.seconds:.1f} s: {told.rate:.0f} calls/s", flush=True)
            wrong = judge(host, told, "mynet")
            clear(workers, told, pods)
            wrong += [] if wrong else judge(host, told, "mynet")
            print("\n".join(f"  {line}"[:300] for line in wrong[:10]) or "  no address twice, none lost", flush=True)
            status |= bool(wrong) and name == "cnictl-bridge"
        print(f"ratio of calls a second, ours to the reference's: {sides[0][2].rate / sides[1][2].rate:.2f}")
    sys.exit(status)


if __name__ == "__main__":
    main()
