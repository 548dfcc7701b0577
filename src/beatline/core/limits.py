"""All bounds on what beatline accepts from outside.

In: nothing. Out: `LIMITS` for files, tables, archives and checkpoints; `SERVE_LIMITS` for a server's clients.
Whatever reads from outside asks here before it allocates anything.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What an input may cost; the defaults suit labelled clips of a few seconds."""

    max_clip_seconds: float = 600.0
    """Longest stretch decoded into a clip, seconds; memory is bounded by it (64 kB a second and
    channel).
    """
    max_recording_seconds: float = 90_000.0
    """Longest recording tagged in bulk, seconds: a day and an hour."""
    max_channels: int = 64
    """Most channels of an input file."""
    min_sample_rate: int = 1000
    """Lowest sample rate of an input file, Hz."""
    max_sample_rate: int = 768_000
    """Highest sample rate of an input file, Hz."""
    max_spooled_bytes: int = 1 << 30
    """Most bytes taken from a pipe, which are copied to a temporary file; PCM WAV is not, and may be of any
    length.
    """
    max_decode_wait: float = 60.0
    """Longest wait for a decoding in a child process, seconds; then the child is killed."""
    max_decoder_bytes: int = 192 << 20
    """Memory that decoding a small file in a child process may take, bytes (enforced on Linux). A large file
    may take its size more, up to four times this limit.
    """
    max_member_bytes: int = 128 << 20
    """Largest audio file read out of an archive, bytes."""
    max_row_group_bytes: int = 1 << 30
    """Largest group of Parquet rows whose audio is read, bytes. A group is held in memory, because Parquet
    gives no smaller piece.
    """
    max_names_bytes: int = 64 << 20
    """Most bytes of names in an HDF5 file, which are kept while it is prepared: three million ids."""
    max_table_bytes: int = 1 << 30
    """Largest CSV or text table read, bytes."""
    max_checkpoint_bytes: int = 16 << 30
    """Largest checkpoint file read, bytes."""


LIMITS = Limits()


@dataclass(frozen=True, kw_only=True)
class ServeLimits:
    """What the clients of a server may cost, each and all together. The defaults suit a machine of a few
    cores that strangers can reach.
    """

    max_file_bytes: int = 256 << 20
    """Largest upload, bytes."""
    max_request_bytes: int = 512 << 20
    """Largest body of a request, bytes."""
    max_files: int = 32
    """Most uploads of a request."""
    max_seconds: float = 3600.0
    """Longest recording, seconds."""
    max_channels: int = LIMITS.max_channels
    """Most channels of a recording; the decoders keep it, so it is that of `Limits`."""
    min_sample_rate: int = LIMITS.min_sample_rate
    """Lowest sample rate of a recording, Hz; as `max_channels`."""
    max_sample_rate: int = LIMITS.max_sample_rate
    """Highest sample rate of a recording, Hz; as `max_channels`."""
    max_connections: int = 512
    """Most connections at once; a further connection is answered 503 with Retry-After and closed."""
    max_uploads: int = 384
    """Most requests at once whose body is still arriving."""
    max_spool_bytes: int = 4 << 30
    """Most bytes of uploads and decoded sound on disk at once."""
    upload_grace: float = 10.0
    """Seconds a request may take to arrive. A body may take as many more as its bytes need at
    `min_upload_rate`.
    """
    min_upload_rate: int = 32_000
    """Slowest average rate of an upload after its grace, bytes a second. Nor may an upload pause for longer
    than the grace.
    """
    answer_grace: float = 30.0
    """Seconds a client may let us wait until it takes the next 48 kB of its answer, or the rest. The whole
    may take as many more as its bytes need at `min_answer_rate`.
    """
    min_answer_rate: int = 32_000
    """Slowest average rate at which an answer is taken after its grace, bytes a second; else the connection
    is closed.
    """
    max_queue: int = 64
    """Most uploaded files at once that are not answered; further requests are answered 429."""
    max_wait: float = 60.0
    """Longest wait of a file for its first window to be scored, seconds; then it is answered 429."""
    decoders: int = 2
    """Child processes that decode."""
    max_decode_wait: float = 8.0
    """Longest time without a sound from a decoder, seconds; then it is killed."""
    max_decode_seconds: float = 60.0
    """Longest time that decoding a file may take, seconds."""
    max_decoder_bytes: int = 48 << 20
    """Memory that decoding a small file may take; see `Limits`."""
    batch_wait: float = 0.005
    """Longest wait of a window for others to share its pass through the model, seconds."""
    max_drain: float = 30.0
    """Longest time that running requests may take after SIGTERM, seconds."""

    def __post_init__(self) -> None:
        for name in ("max_channels", "min_sample_rate", "max_sample_rate"):
            if getattr(self, name) != getattr(LIMITS, name):
                raise ValueError(f"{name} is set in Limits, for every decoding")


SERVE_LIMITS = ServeLimits()
