"""beatline: audio tagging with BEATs. `beatline.load_checkpoint`, `beatline.load_config`, `beatline.run`; the rest is in the rooms."""

from typing import Any

__version__ = "0.1.0"
__all__ = ["load_checkpoint", "load_config", "run"]


def load_config(name: str, overrides: tuple[str, ...] = ()) -> Any:
    """The `Config` of a YAML file or a shipped name, with dotted overrides; see `config.load`."""
    from beatline.config import load

    return load(name, overrides)


def load_checkpoint(path: str) -> Any:
    """A model of any supported family as `Loaded`; `.tagger()` makes it ready to score. See `model.checkpoint.load_checkpoint`."""
    from beatline.model.checkpoint import load_checkpoint as load

    return load(path)


def run(config: Any) -> None:
    """Every stage of a run, in order; see `stages.run`."""
    from beatline.stages import run as run_stages

    run_stages(config)
