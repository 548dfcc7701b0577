"""tagger -> a file in the form that ESPnet's `pack` writes, and its `unpack` and model zoo read.

In: a tagger and its labels. Out: a zip archive with `config.yaml`, `model.pth` and `meta.yaml`. The last
names the other two by the arguments of ESPnet's inference class; `model.checkpoints.espnet` writes them.
"""

import sys
import tempfile
import time
import zipfile
from pathlib import Path

import torch
import yaml

from beatline.core import artefact
from beatline.core.labels import LabelSet
from beatline.model.checkpoints.espnet import write_espnet
from beatline.model.tagger import Tagger

ESPNET = "202511"
"""The version whose form this is, and whose classes load it."""


def write(path: Path, tagger: Tagger, labels: LabelSet) -> None:
    """Writes the archive, whole or not at all.

    Source: `espnet2/main_funcs/pack_funcs.py` and `espnet2/bin/pack.py` (`cls`) of ESPnet 202511; the
    folder's name in the archive is ours.

    Raises:
        UserError: `disk-full` or `not-writable`.
    """
    config = "exp/beatline/config.yaml"
    model = "exp/beatline/model.pth"
    about = {
        "espnet": ESPNET,
        "files": {"classification_model_file": model},
        "python": sys.version,
        "timestamp": time.time(),
        "torch": str(torch.__version__),
        "yaml_files": {"classification_train_config": config},
    }
    with (
        artefact.replacing(path) as file,
        tempfile.TemporaryDirectory(dir=path.parent, prefix=".packing-") as folder,
    ):
        write_espnet(Path(folder), tagger, labels)
        with zipfile.ZipFile(file, "w") as archive:  # stored: weights do not compress
            archive.writestr("meta.yaml", yaml.safe_dump(about))
            for name in (config, model):
                archive.write(Path(folder) / Path(name).name, name)
