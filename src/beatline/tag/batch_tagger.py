"""recordings -> rows of a table: what bulk tagging (`tag.ray`) and other programs' batches share.

In: paths, addresses, bytes, samples, members of archives. Out: a row for each recording, in order; the row of
a refused recording has a code and no scores. Decoding happens in bounded children (`audio.pool`). `Settings`
travels as JSON, `BatchTagger` pickles as its settings: both load their model where they run, once in each
process. Extra `bulk` for Parquet and addresses. Imports no torch.
"""

import json
import tempfile
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from beatline.audio import media
from beatline.audio.pool import Decoders, Job
from beatline.audio.samples import REMEDY, SAMPLE_RATE
from beatline.core import artefact, remote
from beatline.core.errors import UserError, expect
from beatline.core.limits import LIMITS
from beatline.data.manifest.table import as_text
from beatline.model.geometry import MIN_SAMPLES
from beatline.tag.events import EventOptions
from beatline.tag.result import Refused, Result
from beatline.tag.tagger import AudioTagger

AGAIN = ("decoder-crashed", "decode-timeout")  # the file may be innocent of these: it gets a second try
AT_ONCE = 256  # rows held before they are written


COLUMNS = ("code", "cause", "note", "seconds", "scores", "embedding", "events")
"""The columns of a row, after those that name its recording.

`code` and `cause` say why a recording was refused, `note` what a reader should know. `seconds` is its length,
`scores` `(labels,)` and `embedding` `(width,)` are float32, `events` says what sounds when.
"""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What every row depends on besides its recording; as JSON it travels with each task."""

    model: str
    """What `beatline.load` takes, where all machines find it."""
    state: str
    """What tells the model from another of that name, see `state_of`."""
    calibrated: bool = False
    """Whether the temperature and thresholds that lie beside the model are used."""
    events: dict[str, Any] | None = None
    """`EventOptions`, where events are asked for."""
    options: tuple[tuple[str, Any], ...] = ()
    """Of `beatline.load`."""

    @staticmethod
    def of(
        model: str, calibrated: bool = False, events: EventOptions | None = None, **options: Any
    ) -> "Settings":
        """The settings for a model as it is now; a path becomes absolute."""
        model = str(Path(model).absolute()) if Path(model).exists() else model
        return Settings(
            model=model,
            state=state_of(model, calibrated),
            calibrated=calibrated,
            events=asdict(events) if events else None,
            options=tuple(sorted(options.items())),
        )

    def to_json(self) -> str:
        """Text that `from_json` reads."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> "Settings":
        """What `to_json` wrote."""
        values = json.loads(text)
        return Settings(**values | {"options": tuple((name, value) for name, value in values["options"])})

    def tagger(self) -> AudioTagger:
        """The tagger, loaded once in each process.

        Raises:
            UserError: As `beatline.load`; `run-differs` where another model has that name on this machine.
        """
        return _loaded(self.model, self.state, self.calibrated, self.options)

    def event_options(self) -> EventOptions | None:
        """The event options as given."""
        return EventOptions(**self.events) if self.events else None


@lru_cache(1)
def _loaded(model: str, state: str, calibrated: bool, options: tuple[tuple[str, Any], ...]) -> AudioTagger:
    if state_of(model, calibrated) != state:
        raise UserError(
            "run-differs",
            f"cannot use {model}",
            "it is not the model that the job began with",
            "give all machines the same model, and do not change it while the job runs",
        )
    import beatline  # the door: a worker may have to fetch the model first

    tagger = beatline.load(model, **dict(options))
    if calibrated:
        from beatline.tag.calibration import Calibration

        tagger.calibration = Calibration.load(model, tagger.labels)
    return tagger


def state_of(model: str, calibrated: bool) -> str:
    """A hash of a model, and of its calibration where that is used; a hub repository's name."""
    from beatline.tag.calibration import calibration_folder, model_hash

    if not Path(model).exists():
        return model
    beside = artefact.contents_file(calibration_folder(Path(model)))
    return model_hash(Path(model)) + (artefact.sha256_file(beside) if calibrated and beside.exists() else "")


class BatchTagger:
    """Tags batches that are dictionaries of columns. It is for `map_batches` of Ray Data, `map(batched=True)`
    of Hugging Face's data sets, and the like in Spark and Daft.

    It pickles as its settings; each process loads the model when it is first called there.

    Args:
        model: As `beatline.load`.
        column: Of the batch: paths or addresses, files' bytes, or Hugging Face's audio. The latter is
            dictionaries with `bytes`, `path`, or `array` and `sampling_rate`. What gives these two when asked
            will do too.
        calibrated: As `Settings`.
        events: As `AudioTagger.tag`.
        options: Of `beatline.load`.
    """

    def __init__(
        self,
        model: str,
        column: str = "audio",
        calibrated: bool = False,
        events: EventOptions | None = None,
        **options: Any,
    ):
        expect(model, (str, Path), "model", "give a path or a name")
        if events is not None:
            expect(events, EventOptions, "events", "give beatline.EventOptions()")
        self.column = column
        self.settings = Settings.of(model, calibrated, events, **options)

    @property
    def labels(self) -> list[str]:
        """Names in the order of the scores."""
        return list(self.settings.tagger().labels.names)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The batch with further columns, see `COLUMNS`: `scores` and `embedding` are arrays, whose row is
        NaN where a recording has a `code`, as is its `seconds`.
        """
        tagger = self.settings.tagger()
        events = self.settings.event_options()
        with tempfile.TemporaryDirectory(prefix="beatline-") as scratch:
            sources = (
                _source(value, Path(scratch) / str(number)) for number, value in enumerate(batch[self.column])
            )
            rows = [row(result) for result in tagged(tagger, sources, events)]
        columns: dict[str, Any] = {name: [row[name] for row in rows] for name in ("code", "cause", "note")}
        columns["seconds"] = np.array(
            [np.nan if row["seconds"] is None else row["seconds"] for row in rows], np.float64
        )
        for name, width in (
            ("scores", len(tagger.labels)),
            ("embedding", self._width(tagger)),
        ):  # arrays of equal shape, or Arrow would not know their type
            columns[name] = (
                np.stack(
                    [np.full(width, np.nan, np.float32) if row[name] is None else row[name] for row in rows]
                )
                if rows
                else np.empty((0, width), np.float32)
            )
        return {**batch, **columns, **({"events": [row["events"] for row in rows]} if events else {})}

    @staticmethod
    def _width(tagger: AudioTagger) -> int:
        return tagger.engine.outputs([np.zeros(MIN_SAMPLES, np.float32)]).embeddings.shape[1]


def _source(value: Any, scratch: Path) -> Any:
    """What `tagged` takes, of a value in a batch."""
    try:
        if isinstance(value, dict):
            if value.get("array") is not None:
                return _decoded(value)
            value = value["path"] if value.get("bytes") is None else value["bytes"]
        if isinstance(value, bytes | bytearray | memoryview):
            scratch.write_bytes(value)
            return Job(scratch, name="audio")
        return job(str(value), scratch) if isinstance(value, str | Path) else _decoded(value)
    except KeyError as error:
        return refusal(
            "not-audio", f"a dictionary without {error}", "give bytes, path, or array and sampling_rate"
        )
    except UserError as error:
        return error


def _decoded(value: Any) -> Any:
    """The samples of a value that decodes when asked for them by name.

    Audio in Hugging Face's data sets has done so since their version 4.
    """
    try:
        return np.asarray(value["array"]), int(value["sampling_rate"])
    except Exception as error:
        return refusal(
            "not-audio",
            f"a value of type {type(value).__name__} ({error})",
            "give paths, bytes, or Hugging Face's audio",
        )


def refusal(code: str, cause: str, remedy: str = REMEDY) -> UserError:
    """A source that `tagged` refuses with these words."""
    return UserError(code, "cannot use audio", cause, remedy)


def job(address: str, scratch: Path) -> Job:
    """A file as a decoder reads it: of an address its copy at `scratch`.

    Raises:
        UserError: `download-failed`, `missing-package`, `bad-usage`.
    """
    path = remote.folder(address)
    if path is None:
        remote.get(address, scratch)
    return Job(path or scratch, name=address)


def row(result: Result | Refused) -> dict[str, Any]:
    """The result as `COLUMNS`; None where there is nothing to say."""
    if isinstance(result, Refused):
        return dict.fromkeys(COLUMNS) | {"code": result.error.code, "cause": as_text(result.error.cause)}
    values = (None, None, result.note or None, result.seconds, result.scores, result.embedding)
    events = [
        {"mid": e.label.mid, "name": e.label.name, "onset": e.onset, "offset": e.offset, "score": e.score}
        for e in result.events or ()
    ]
    return dict(zip(COLUMNS, (*values, events), strict=True))


def tagged(
    tagger: AudioTagger, sources: Iterable[Any], events: EventOptions | None = None
) -> Iterator[Result | Refused]:
    """A result for each source, in order: for a `Job`, for samples with their rate, and for a `refusal`."""
    ahead: deque[Any] = deque()

    def noted() -> Iterator[Any]:
        for source in sources:
            ahead.append(source)
            yield source

    readers = tagger.engine.readers
    with Decoders(
        2 * readers + 2 if readers else 1
    ) as decoders:  # a child for each source that may have begun: none waits for a source behind it
        for result in tagger.tag(noted(), events, _read(decoders)):
            source = ahead.popleft()
            if isinstance(result, Refused) and result.error.code in AGAIN:
                with Decoders(1) as others:
                    (result,) = tagger.tag([source], events, _read(others))
            yield result


def _read(decoders: Decoders) -> Callable[[Any, float], Generator[np.ndarray, None, str]]:
    """A reader for `AudioTagger.tag`."""

    def read(source: Any, seconds: float) -> Generator[np.ndarray, None, str]:
        if isinstance(source, UserError):
            raise source
        count = 0
        blocks = (
            decoders.blocks(source, seconds) if isinstance(source, Job) else media.blocks(source, seconds)
        )
        while True:
            try:
                block = next(blocks)
            except StopIteration as end:
                return end.value
            count += len(block)
            if count > LIMITS.max_recording_seconds * SAMPLE_RATE:
                blocks.close()
                raise UserError(
                    "too-long",
                    f"cannot use {source}",
                    f"it is longer than {LIMITS.max_recording_seconds:g} s",
                    "cut it into pieces",
                )
            yield block

    return read


def write(path: Path, rows: Iterator[dict[str, Any]], tagger: AudioTagger, events: bool) -> dict[str, Any]:
    """Facts about the Parquet file that the rows become: their number, `refused` by code, `seconds` of sound,
    bytes and SHA-256.

    Args:
        rows: `file`, `member`, `position` and `COLUMNS`.
        events: Whether the table has the column `events`.
    """
    from pyarrow import Table
    from pyarrow.parquet import ParquetWriter

    schema = _schema(tagger, events)
    count = 0
    seconds = 0.0
    refused = Counter[str]()
    with ParquetWriter(path, schema, compression="zstd") as file:
        while group := list(islice(rows, AT_ONCE)):
            file.write_table(Table.from_pylist(group, schema))
            count += len(group)
            refused.update(row["code"] for row in group if row["code"])
            seconds += sum(row["seconds"] or 0.0 for row in group)
    return {
        "rows": count,
        "refused": dict(sorted(refused.items())),
        "seconds": round(seconds, 3),
        "bytes": path.stat().st_size,
        "sha256": artefact.sha256_file(path),
    }


def _schema(tagger: AudioTagger, events: bool) -> Any:
    """The columns, with the labels in the order of the scores as JSON beside them."""
    import pyarrow as pa

    numbers = pa.list_(pa.float32())
    event = pa.struct(
        [
            ("mid", pa.string()),
            ("name", pa.string()),
            ("onset", pa.float64()),
            ("offset", pa.float64()),
            ("score", pa.float32()),
        ]
    )
    columns = (
        [(name, pa.string()) for name in ("file", "member")]
        + [("position", pa.int64())]
        + [(name, pa.string()) for name in ("code", "cause", "note")]
    )
    columns += [("seconds", pa.float64()), ("scores", numbers), ("embedding", numbers)] + (
        [("events", pa.list_(event))] if events else []
    )
    return pa.schema(
        columns, metadata={"mids": json.dumps(tagger.labels.mids), "names": json.dumps(tagger.labels.names)}
    )
