"""audio files -> scores: any recordings, of any length, through any engine.

In: paths, bytes or streams. Out: one `Tagged` for each, in order, or the reason why not. Files are decoded ahead of the model; windows of
different recordings share batches; memory holds a few dozen windows and the scores, whatever the recordings' length. Imports no torch.
"""

import csv
import glob
import json
import os
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from beatline import engine as engines
from beatline import media, windows
from beatline.ahead import buffered
from beatline.audio import FULL_SCALE, SAMPLE_RATE
from beatline.engine import Engine
from beatline.errors import UserError
from beatline.media import Audio
from beatline.tagged import Refused, Tagged
from beatline.windows import Merge

WINDOW_SECONDS = 10.0
HOP_SECONDS = 5.0
WINDOWS_AT_ONCE = 32  # collected before scoring, so that those of one length meet
AUDIO_SUFFIXES = frozenset(
    [".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".m4a", ".mp4", ".aac", ".webm", ".mkv", ".mka", ".wma", ".amr", ".aif", ".aiff", ".aifc", ".au", ".caf", ".w64", ".rf64", ".snd", ".mp2", ".ac3", ".mov", ".avi", ".3gp", ".ape", ".wv", ".tta"]
)  # what a folder is searched for; a file named by itself may be called anything


@dataclass
class _Open:
    """A recording some of whose windows are not scored yet."""

    source: str
    starts: list[int] = field(default_factory=list)
    scores: list[np.ndarray] = field(default_factory=list)
    embeddings: list[np.ndarray] = field(default_factory=list)
    samples: int = 0
    note: str = ""
    whole: bool = False
    error: UserError | None = None

    @property
    def done(self) -> bool:
        return self.error is not None or (self.whole and len(self.scores) == len(self.starts))


class AudioTagger:
    """Audio in, labels out: any path, bytes, stream or array; any thread may call it. `beatline.load` makes one.

    Args:
        engine: What runs the model.
        window: Longest stretch scored at once, seconds; a recording no longer than it is scored whole.
        hop: Seconds from one window's begin to the next, above 0 up to `window`.
        merge: How a recording's scores come from those of its windows, see `windows.merge`.
    """

    def __init__(self, engine: Engine, window: float = WINDOW_SECONDS, hop: float = HOP_SECONDS, merge: Merge = "mean"):
        if not 0 < hop <= window:
            raise UserError("bad-usage", f"a hop of {hop:g} s", f"it is not above 0 and at most the window of {window:g} s", "give another")
        self.engine, self.labels, self.window, self.hop, self.merge = engine, engine.labels, window, hop, merge

    def __call__(self, audio: Any, rate: int | None = None) -> Any:
        """A `Tagged`, or a list of them for a list.

        Args:
            audio: A path, bytes of a file, a binary stream, or an array `(samples,)` or `(samples, channels)` with its `rate`; or a list of them.
            rate: Samples a second of arrays, Hz.

        Raises:
            UserError: What is wrong with the audio; of a list, with the first that has something.
        """
        several = isinstance(audio, list | tuple)
        results = []
        for result in self.tag(as_source(one, rate) for one in (audio if several else [audio])):
            if isinstance(result, Refused):
                raise result.error
            results.append(result)
        return results if several else results[0]

    def tag(self, sources: Iterable[Audio]) -> Iterator[Tagged | Refused]:
        """One result for each recording, in order, as they come; one that cannot be used costs the others nothing."""
        return tag(self.engine, sources, self.window, self.hop, self.merge)


def as_source(audio: Any, rate: int | None = None) -> Audio:
    """What `media` reads, of anything a user may mean by audio.

    Raises:
        UserError: `not-audio`.
    """
    if isinstance(audio, str | os.PathLike):
        return Path(audio)
    if isinstance(audio, bytes | bytearray | memoryview):
        return bytes(audio)
    if hasattr(audio, "read"):
        return audio
    if rate is None:
        raise UserError("not-audio", "cannot use an array", "its sample rate is not given", "call tagger(array, rate)")
    return np.asarray(audio), rate


def load(
    source: Path | str,
    engine: engines.Name = "auto",
    precision: engines.Precision = "float32",
    device: str = "auto",
    threads: int = 0,
    window: float = WINDOW_SECONDS,
    hop: float | None = None,
    merge: Merge = "mean",
) -> AudioTagger:
    """A run folder, a checkpoint or an export as a tagger; see `export.load` and `AudioTagger`. An export is loaded without importing torch.

    Args:
        hop: Seconds; None is half a window.
    """
    path = Path(source)
    path = path / "model" if (path / "model").is_dir() else path  # a run folder stands for the model in it
    if engines.is_export(path):
        ready: Engine = engines.load_export(path, engine, precision, threads)
    else:
        from beatline import export

        ready = export.load(path, engine, precision, device, threads)
    return AudioTagger(ready, window, window / 2 if hop is None else hop, merge)


def find(patterns: Iterable[str]) -> Iterator[Path]:
    """The files that arguments name: a file as it is, a folder's audio files below it in order of name, a glob's matches."""
    for pattern in patterns:
        path = Path(pattern)
        if path.is_dir():
            for folder, folders, names in os.walk(path):
                folders.sort()
                yield from (Path(folder) / name for name in sorted(names) if Path(name).suffix.lower() in AUDIO_SUFFIXES)
        elif not path.exists() and glob.has_magic(pattern):
            yield from (Path(match) for match in sorted(glob.glob(pattern, recursive=True)))
        else:
            yield path


def tag(engine: Engine, sources: Iterable[Audio], window: float = WINDOW_SECONDS, hop: float = HOP_SECONDS, merge: Merge = "mean") -> Iterator[Tagged | Refused]:
    """One result for each recording, in order.

    Args:
        window: Longest stretch scored at once, seconds; a recording no longer than it is scored whole.
        hop: Seconds from one window's begin to the next, above 0 up to `window`.
        merge: How a recording's scores come from those of its windows.
    """
    waiting: deque[_Open] = deque()
    batch: list[tuple[_Open, int, np.ndarray]] = []
    for item in buffered(_windows(sources, round(window * SAMPLE_RATE), round(hop * SAMPLE_RATE)), WINDOWS_AT_ONCE):
        recording, place, samples = item
        if place == 0:
            waiting.append(recording)
        if samples is not None:
            batch.append((recording, place, samples))
        if len(batch) == WINDOWS_AT_ONCE:
            _score(engine, batch)
        while waiting and waiting[0].done:
            yield _result(engine, waiting.popleft(), merge)
    _score(engine, batch)
    yield from (_result(engine, recording, merge) for recording in waiting)


def _windows(sources: Iterable[Audio], window: int, hop: int) -> Iterator[tuple[_Open, int, np.ndarray | None]]:
    """`(recording, number of the window, its samples)`; each recording ends with an item without samples."""
    for source in sources:
        recording = _Open(str(source) if isinstance(source, Path) else "audio")
        place = 0
        try:
            blocks = _Noted(media.blocks(source, window / SAMPLE_RATE))
            for begin, samples in windows.cut(blocks, window, hop):
                recording.starts.append(begin)
                yield recording, place, samples
                place += 1
            recording.samples, recording.note, recording.whole = blocks.samples, blocks.note, True
        except UserError as error:
            recording.error = error
        yield recording, place, None


class _Noted:
    """Blocks whose samples are counted and whose note is kept."""

    def __init__(self, blocks: Any):
        self.blocks, self.samples, self.note = blocks, 0, ""

    def __iter__(self) -> Iterator[np.ndarray]:
        while True:
            try:
                block = next(self.blocks)
            except StopIteration as end:
                self.note = end.value or ""
                return
            self.samples += len(block)
            yield block


def _score(engine: Engine, batch: list[tuple[_Open, int, np.ndarray]]) -> None:
    """Scores windows, those of like length together, and gives the rows to their recordings."""
    clips = [windows.tile_short(samples) for _, _, samples in batch]
    order = sorted(range(len(clips)), key=lambda i: -len(clips[i]))
    rows: list[Any] = [None] * len(clips)
    for begin in range(0, len(order), engine.clips_at_once):
        some = order[begin : begin + engine.clips_at_once]
        lengths = np.array([len(clips[i]) for i in some], np.int64)
        waveforms = np.zeros((len(some), lengths[0]), np.float32)
        for row, i in zip(waveforms, some, strict=True):
            row[: len(clips[i])] = clips[i] / np.float32(FULL_SCALE)
        result = engine.run(waveforms, lengths)
        for k, i in enumerate(some):
            rows[i] = (result.scores[k], result.embeddings[k])
    for (recording, _, _), (scores, embedding) in zip(batch, rows, strict=True):
        recording.scores.append(scores)
        recording.embeddings.append(embedding)
    batch.clear()


def _result(engine: Engine, recording: _Open, merge: Merge) -> Tagged | Refused:
    if recording.error is not None:
        return Refused(recording.source, recording.error)
    scores = np.stack(recording.scores)
    return Tagged(
        source=recording.source,
        labels=engine.labels,
        scores=windows.merge(scores, merge),
        embedding=np.mean(recording.embeddings, axis=0),
        starts=np.array(recording.starts) / SAMPLE_RATE,
        window_scores=scores,
        seconds=recording.samples / SAMPLE_RATE,
        note=recording.note,
    )


def write(results: Iterable[Tagged | Refused], form: str, top: int) -> UserError | None:
    """Prints each result as it comes, and one line on standard error for each refused file; the last refusal, if any.

    Args:
        form: `table` and `jsonl` give the `top` best labels; `csv` a row for each of them: file, seconds, mid, name, score.
    """
    last = None
    rows = csv.writer(sys.stdout, lineterminator="\n")
    if form == "csv":
        rows.writerow(["file", "seconds", "mid", "name", "score"])
    for result in results:
        if isinstance(result, Refused):
            last = result.error
            print(f"beatline: {last}", file=sys.stderr)
        elif form == "jsonl":
            print(json.dumps(result.to_dict(top), ensure_ascii=False))
        elif form == "csv":
            rows.writerows([result.source, f"{result.seconds:.3f}", label.mid, label.name, f"{score:.6f}"] for label, score in result.top(top))
        else:
            print(f"{result.source}  {result.seconds:.1f} s" + (f"  ({result.note})" if result.note else ""))
            print("\n".join(f"  {score:6.3f}  {label.name}" for label, score in result.top(top)))
        sys.stdout.flush()
    return last
