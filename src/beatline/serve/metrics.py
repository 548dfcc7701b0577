"""What the server counts, as Prometheus reads it.

In: events of the server. Out: text of `/metrics`. A counter, gauge or histogram is a line in `Metrics`;
labels are few and ours, never a client's words.
"""

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, generate_latest
from prometheus_client.registry import Collector

SECONDS = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
WINDOWS = (1, 2, 4, 8, 16, 32, 64)


class Metrics(Collector):
    """Everything that an application counts; applications in the same process share nothing.

    Args:
        queue: Says how many files wait.
        uploading: Says how many bodies are arriving.
        connections: Says how many connections are open.
    """

    def __init__(
        self, queue: Callable[[], float], uploading: Callable[[], float], connections: Callable[[], float]
    ):
        own = CollectorRegistry()
        self._registry = own
        self.requests = Counter(
            "beatline_requests_total", "Answers, by HTTP status.", ["status"], registry=own
        )
        self.files = Counter(
            "beatline_files_total",
            "Files, by outcome: tagged, left, or the code of the refusal.",
            ["outcome"],
            registry=own,
        )
        self.rejections = Counter(
            "beatline_rejections_total", "Requests refused as a whole, by code.", ["code"], registry=own
        )
        self.audio = Counter(
            "beatline_audio_seconds_total", "Seconds of sound that were tagged.", registry=own
        )
        self.request_seconds = Histogram(
            "beatline_request_seconds",
            "Time from a request for tags to the end of its answer.",
            buckets=SECONDS,
            registry=own,
        )
        self.decode_seconds = Histogram(
            "beatline_decode_seconds",
            "Time from an upload to its samples, with the wait for a decoder.",
            buckets=SECONDS,
            registry=own,
        )
        self.pass_seconds = Histogram(
            "beatline_pass_seconds", "Time of a pass through the model.", buckets=SECONDS, registry=own
        )
        self.pass_windows = Histogram(
            "beatline_pass_windows", "Windows of a pass through the model.", buckets=WINDOWS, registry=own
        )
        for name, about, read in (
            ("beatline_queue_files", "Files that are uploaded and not answered.", queue),
            ("beatline_uploads", "Requests whose body is arriving.", uploading),
            ("beatline_connections", "Open connections.", connections),
        ):
            Gauge(name, about, registry=own).set_function(read)

    def collect(self) -> Iterator[Metric]:
        """All metrics, without their times of creation, which are not documented."""
        for metric in self._registry.collect():
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric

    def text(self) -> str:
        """All metrics in Prometheus' text form, version 0.0.4."""
        return generate_latest(self).decode()
