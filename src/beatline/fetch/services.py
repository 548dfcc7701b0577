"""Every address that beatline knows, in a single table.

In: nothing. Out: constants for the other modules of `fetch`. Hugging Face's own address is
`huggingface_hub`'s (environment variable HF_ENDPOINT). Hashes are of files that were at hand, or as third
parties list them. A file without a hash is used with a notice that prints its own.
"""

from dataclasses import dataclass

AUDIOSET = "https://storage.googleapis.com/us_audioset/youtube_corpus/"
ONTOLOGY = "https://raw.githubusercontent.com/audioset/ontology/master/"
VIDEO = "https://www.youtube.com/watch?v={id}"


@dataclass(frozen=True)
class Copy:
    """A copy of AudioSet's audio on the Hugging Face Hub."""

    repository: str
    folders: tuple[tuple[str, str], ...]
    """Folder of the repository and the table whose clips it holds."""


COPIES = (
    Copy(
        "confit/audioset-16khz-wds",
        (("20k/train", "balanced"), ("20k/test", "eval"), ("2m/train", "unbalanced")),
    ),
    Copy(
        "agkphysics/AudioSet",
        (("data/bal_train", "balanced"), ("data/eval", "eval"), ("data/unbal_train", "unbalanced")),
    ),
)

CHECKPOINT_COPIES = ("lpepino/beats_ckpts", "Bencr/beats-checkpoints")
"""Repositories with the BEATs release's checkpoints; the release's own links need a browser."""

CHECKPOINTS = {
    "BEATs_iter3": "",
    "BEATs_iter3_plus_AS20K": "",
    "BEATs_iter3_plus_AS2M": "d43cbfad4d7b56381c061d7a24774f908d4d94c72961f6eb1d9090ff18cd8d34",
}
"""SHA-256 of the release's checkpoints by name, empty where it is not known."""
