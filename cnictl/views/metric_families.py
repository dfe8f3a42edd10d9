"""Make the metrics of `cnictl metrics` with prometheus-client (names: prometheus.io/docs/practices/naming)."""

from collections import Counter
from collections.abc import Iterator

from prometheus_client import generate_latest
from prometheus_client.core import (
    CollectorRegistry,
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from cnictl import __version__
from cnictl.core.liveness import STALE
from cnictl.doctor import catalogue
from cnictl.doctor.facts import Facts
from cnictl.node.host import plugin_log, reading
from cnictl.views import tally
from cnictl.watch import repairs


def text(with_doctor: bool, ask_peers: bool) -> str:
    """Return all metrics in the text format. Raises Problem, OSError.

    Without `ask_peers`, doctor's checks that wait for answers are skipped, because a scrape must not take seconds.
    """
    registry = CollectorRegistry()
    registry.register(_Node(with_doctor, ask_peers))
    with reading.cached_pass():
        return generate_latest(registry).decode()


class _Node(Collector):
    """Collects the metrics of this node when the registry asks for them."""

    def __init__(self, with_doctor: bool, ask_peers: bool) -> None:
        self._facts = Facts()
        self._with_doctor = with_doctor
        self._left_out = () if ask_peers else tuple(check.id for check in catalogue.CHECKS if check.waits)

    def describe(self) -> list[Metric]:
        """Return nothing, so that registering does not collect."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield every family."""
        # first: while doctor waits for peers, it also reads the facts that the other metrics need
        examined = catalogue.examine(self._facts, skip=self._left_out) if self._with_doctor else None
        yield InfoMetricFamily("cnictl_build", "Version of cnictl.", {"version": __version__})
        yield from self._addresses()
        yield from self._calls()
        drift = GaugeMetricFamily("cnictl_drifted_resources", "Resources that differ from the node file.")
        drift.add_metric([], len(self._facts.drift))
        yield drift
        yield from self._repairs()
        if examined is not None:
            yield from self._findings(examined)

    def _addresses(self) -> Iterator[Metric]:
        labels = ["network", "range"]
        used = GaugeMetricFamily("cnictl_addresses_used", "Addresses that are leased.", labels=labels)
        free = GaugeMetricFamily("cnictl_addresses_free", "Addresses that are available for new pods.", labels=labels)
        stale = GaugeMetricFamily("cnictl_leases_stale", "Leases of pods that are provably gone.", labels=["network"])
        for listing in self._facts.listings:
            for ranges in listing.sets:
                count = listing.used_of(ranges)
                used.add_metric([listing.network, str(ranges)], count)
                free.add_metric([listing.network, str(ranges)], ranges.size - count)
            stale.add_metric([listing.network], sum(row.leased and row.state == STALE for row in listing.rows))
        yield from (used, free, stale)

    def _calls(self) -> Iterator[Metric]:
        family = HistogramMetricFamily(
            "cnictl_plugin_call_duration_seconds",
            "The plugin's calls, by verb and outcome.",
            labels=["verb", "outcome"],
        )
        for key, total in tally.totals(plugin_log.path_of(self._facts.spec)).items():
            buckets = [(str(bound), count) for bound, count in zip(tally.BUCKETS, total["buckets"], strict=True)]
            family.add_metric(key.split(), [*buckets, ("+Inf", total["count"])], total["sum"])
        yield family

    def _repairs(self) -> Iterator[Metric]:
        state = repairs.saved()
        runs = GaugeMetricFamily("cnictl_watch_running", "Whether `cnictl watch` runs.")
        runs.add_metric([], state is not None)
        yield runs
        counted = CounterMetricFamily(
            "cnictl_watch_repairs", "Repairs by `cnictl watch` since it was started.", labels=["resource"]
        )
        given_up = GaugeMetricFamily(
            "cnictl_watch_given_up", "Resources that watch no longer repairs.", labels=["resource"]
        )
        for resource, count in (state or {}).get("repairs", {}).items():
            counted.add_metric([resource], count)
        for resource in (state or {}).get("given_up", {}):
            given_up.add_metric([resource], 1)
        yield from (counted, given_up)

    def _findings(self, examined: catalogue.Examined) -> Iterator[Metric]:
        family = GaugeMetricFamily(
            "cnictl_doctor_findings", "Findings of `cnictl doctor`.", labels=["check", "severity"]
        )
        not_made = GaugeMetricFamily(
            "cnictl_doctor_checks_not_made",
            "Checks without a sample in cnictl_doctor_findings. reason=failed: the check could not run; reason=waits: "
            "it waits for answers and was not requested.",
            labels=["check", "reason"],
        )
        reasons = dict.fromkeys(self._left_out, "waits") | {name: "failed" for name, _ in examined.unable}
        counts = Counter((finding.id, finding.severity) for finding in examined.findings)
        for check in catalogue.CHECKS:
            if check.id in reasons:
                not_made.add_metric([check.id, reasons[check.id]], 1)
            else:  # 0: the check ran and found nothing
                family.add_metric([check.id, check.severity], counts[check.id, check.severity])
        yield from (family, not_made)
