"""Path -> model, of whichever family; `FAMILIES` lists those that pickle.

In: a file or folder. Out: a `Loaded` model, a `LoadedTagger` where it has a head. A new family is a module
with a `read` and an entry in `FAMILIES`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from beatline.model.checkpoints import espnet, own, release
from beatline.model.checkpoints.loaded import Loaded, LoadedTagger, bad_checkpoint
from beatline.model.checkpoints.pickles import read_pickle

FAMILIES: tuple[Callable[[Path, Any, Path | None], Loaded | None], ...] = (release.read, espnet.read)
"""Each takes a file, its content and `architecture`, and gives None for a file of another family."""


def load_checkpoint(path: Path | str, architecture: Path | str | None = None) -> Loaded:
    """Reads a model of any supported family, told apart by content; a `LoadedTagger` where it has a head.

    Args:
        path: A beatline model, checkpoint or run folder. Or a `.pt` of the BEATs release or OpenBEATs, or a
            `.pth` with `config.yaml` beside it (ESPnet). Or the folder of such a file.
        architecture: For fine-tuned OpenBEATs, whose architecture is elsewhere: the base model's
            `config.yaml` (with `beats_config`) or `.pt`.

    Raises:
        UserError: `missing-file`, `empty-file`, `bad-checkpoint`, `label-mismatch`, `corrupt-artefact`.
    """
    path = Path(path)
    folder = own.model_folder(path)
    if folder is not None:
        return own.read(folder)
    file = _only_file(path)
    if file.suffix == ".safetensors":
        raise bad_checkpoint(
            file, "a .safetensors file alone has no configuration", "give the folder it belongs to"
        )
    content = read_pickle(file)
    for read in FAMILIES:
        loaded = read(file, content, Path(architecture) if architecture else None)
        if loaded is not None:
            return loaded
    raise bad_checkpoint(
        file, "it is neither of the BEATs release nor has it an ESPnet config.yaml beside it"
    )


def load_tagger(path: Path | str, architecture: Path | str | None = None) -> LoadedTagger:
    """Reads a model that has a head.

    Args:
        path: As `load_checkpoint`.
        architecture: As `load_checkpoint`.

    Raises:
        UserError: As `load_checkpoint`; `bad-checkpoint` where the model has no head.
    """
    return load_checkpoint(path, architecture).need_head()


def _only_file(path: Path) -> Path:
    """The single `.pt` or `.pth` in a folder, or the file itself."""
    if path.is_dir():
        found = sorted(p for pattern in ("*.pth", "*.pt") for p in path.glob(pattern))
        if len(found) != 1:
            raise bad_checkpoint(path, f"the folder holds {len(found)} .pt or .pth files", "name the file")
        return found[0]
    return path
