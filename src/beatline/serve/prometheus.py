"""What the server counts, as Prometheus reads it.

In: events of the server. Out: text of `/metrics`. A counter, gauge or histogram is a line in `Metrics`;
labels are few and ours, never a client's words.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

SECONDS = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
WINDOWS = (1, 2, 4, 8, 16, 32, 64)


class _Metric(Protocol):
    name: str
    kind: str
    about: str

    def lines(self) -> list[str]: ...


class Counter:
    """A number for each value of one label, or one number; it only grows."""

    kind = "counter"

    def __init__(self, name: str, about: str, label: str = ""):
        self.name, self.about, self._label = name, about, label
        self._counts: dict[str, float] = {} if label else {"": 0}

    def add(self, value: str = "", amount: float = 1) -> None:
        """Counts one, or `amount`."""
        self._counts[value] = self._counts.get(value, 0) + amount

    def lines(self) -> list[str]:
        """In Prometheus' form."""
        return [
            f'{self.name}{{{self._label}="{value}"}} {count:.15g}'
            if self._label
            else f"{self.name} {count:.15g}"
            for value, count in sorted(self._counts.items())
        ]


class Gauge:
    """A number that is asked for when it is read."""

    kind = "gauge"

    def __init__(self, name: str, about: str, read: Callable[[], float]):
        self.name, self.about, self._read = name, about, read

    def lines(self) -> list[str]:
        """In Prometheus' form."""
        return [f"{self.name} {self._read():.15g}"]


class Histogram:
    """How many observations were at most each bound."""

    kind = "histogram"

    def __init__(self, name: str, about: str, bounds: Sequence[float]):
        self.name, self.about, self._bounds = name, about, bounds
        self._counts, self._sum = [0] * (len(bounds) + 1), 0.0

    def add(self, value: float) -> None:
        """One observation."""
        self._counts[
            next((i for i, bound in enumerate(self._bounds) if value <= bound), len(self._bounds))
        ] += 1
        self._sum += value

    def lines(self) -> list[str]:
        """In Prometheus' form."""
        lines, below = [], 0
        for bound, count in zip([*map(str, self._bounds), "+Inf"], self._counts, strict=True):
            below += count
            lines.append(f'{self.name}_bucket{{le="{bound}"}} {below}')
        return [*lines, f"{self.name}_sum {self._sum:.15g}", f"{self.name}_count {below}"]


class Metrics:
    """Everything that is counted."""

    def __init__(
        self, queue: Callable[[], float], uploading: Callable[[], float], connections: Callable[[], float]
    ):
        self.requests = Counter("beatline_requests_total", "Answers, by HTTP status.", "status")
        self.files = Counter(
            "beatline_files_total", "Files, by outcome: tagged, left, or the code of the refusal.", "outcome"
        )
        self.rejections = Counter(
            "beatline_rejections_total", "Requests refused as a whole, by code.", "code"
        )
        self.audio = Counter("beatline_audio_seconds_total", "Seconds of sound that were tagged.")
        self.request_seconds = Histogram(
            "beatline_request_seconds", "Time from a request for tags to the end of its answer.", SECONDS
        )
        self.decode_seconds = Histogram(
            "beatline_decode_seconds",
            "Time from an upload to its samples, with the wait for a decoder.",
            SECONDS,
        )
        self.pass_seconds = Histogram("beatline_pass_seconds", "Time of a pass through the model.", SECONDS)
        self.pass_windows = Histogram(
            "beatline_pass_windows", "Windows of a pass through the model.", WINDOWS
        )
        self._gauges = [
            Gauge("beatline_queue_files", "Files that are uploaded and not answered.", queue),
            Gauge("beatline_uploads", "Requests whose body is arriving.", uploading),
            Gauge("beatline_connections", "Open connections.", connections),
        ]

    def text(self) -> str:
        """All of it in Prometheus' text form, version 0.0.4."""
        metrics: list[_Metric] = [
            metric for metric in vars(self).values() if isinstance(metric, Counter | Histogram)
        ]
        lines = []
        for metric in [*metrics, *self._gauges]:
            lines += [
                f"# HELP {metric.name} {metric.about}",
                f"# TYPE {metric.name} {metric.kind}",
                *metric.lines(),
            ]
        return "\n".join(lines) + "\n"
