"""AVEX's `.safetensors` files: a BEATs encoder that the Earth Species Project trained on animals' sounds.

In: a file. Out: a `Loaded` model without a head. Its makers mean it to be embedded with, probed or tuned,
so its classifier, and the release's predictor that lies in it, are left out on purpose.
Source: avex/models/beats_model.py and avex/models/beats of earthspecies/avex, for the names of tensors.
"""

from pathlib import Path

from beatline.model.checkpoints import own
from beatline.model.checkpoints.loaded import Loaded
from beatline.model.checkpoints.translate import check_left, encoder_config, named_tensors, translate

PREFIX = "backbone."
RENAMED = {
    "encoder.pos_conv.0.parametrizations.weight.original0": "encoder.pos_conv.0.weight_g",
    "encoder.pos_conv.0.parametrizations.weight.original1": "encoder.pos_conv.0.weight_v",
}
"""Names that PyTorch's newer weight norm gives, and the release's."""
UNUSED = ("classifier.", "predictor.", "fbank.")
"""Beginnings of names outside the encoder."""


def read(path: Path) -> Loaded | None:
    """The encoder; None for a file of another family.

    Raises:
        UserError: `bad-checkpoint`; `corrupt-artefact` for a file that is no safetensors.
    """
    tensors = named_tensors(path, own.load_tensors(path))
    named = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    if not any(name.startswith(PREFIX) for name in named):
        return None
    plain = {name.removeprefix(PREFIX): tensor for name, tensor in named.items()}
    released = {RENAMED.get(name, name): tensor for name, tensor in plain.items()}
    config = encoder_config(path, None, released)
    state, left = translate(path, released, config)
    unused = tuple(name for name in left if name.startswith(UNUSED))
    ignored = check_left(path, {name: tensor for name, tensor in left.items() if name not in unused})
    return Loaded(source=path, family="AVEX", config=config, state=state, ignored=(*unused, *ignored))
