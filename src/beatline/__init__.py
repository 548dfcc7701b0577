"""beatline: audio tagging with BEATs.

`beatline.load(model)("bark.mp3")` tags; `beatline.load_config` and `beatline.run` are the recipe,
`beatline.load_checkpoint` the model in PyTorch. The rest is in the rooms. Importing this imports no torch.
"""

from typing import Any

from beatline.core import system
from beatline.core.version import __version__ as __version__
from beatline.model import memory

__all__ = ["load", "load_checkpoint", "load_config", "run"]

memory.use_large_pages()


def load(source: Any, **options: Any) -> Any:
    """A run folder, checkpoint, export or hub repository as an `AudioTagger`; see `tag.load`."""
    system.check()
    from beatline.fetch import checkpoints
    from beatline.tag.tagger import load as load_tagger

    return load_tagger(checkpoints.find(source), **options)


def load_config(name: str, overrides: tuple[str, ...] = ()) -> Any:
    """The `Config` of a YAML file or a shipped name, with dotted overrides; see `config.load`."""
    from beatline.config import load

    return load(name, overrides)


def load_checkpoint(path: str) -> Any:
    """A model of any supported family as `Loaded`; `.tagger()` makes it ready to train or score in PyTorch.
    See `model.checkpoint.load_checkpoint`.
    """
    from beatline.model.checkpoints.load import load_checkpoint as load

    return load(path)


def run(config: Any) -> None:
    """Every stage of a run, in order; see `stages.run`."""
    from beatline.recipe import run as run_stages

    run_stages(config)
