"""Every address that beatline knows, in a single table.

In: nothing. Out: constants for the other modules of `fetch`. Hugging Face's own address is
`huggingface_hub`'s (environment variable HF_ENDPOINT). `known` has the models.
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

CHECKPOINT_COPIES = ("lpepino/beats_ckpts", "camenduru/beats", "mooneyko/BEATs")
"""Repositories with some of the BEATs release's checkpoints; the release's own links need a browser."""
