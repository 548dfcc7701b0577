"""Every model that beatline knows by name, in a single table: the box, the BEATs release's, ESPnet's, AVEX's.

In: a name. Out: a `Known`: its labels, size, licence, published figure and hash, and whether it is here. What
is not known is left empty. Hashes and sizes are of files that were at hand, or as third parties list them.
Sources: the release's README (microsoft/unilm, beats), its paper (arXiv 2212.09058), the models' pages on the
Hugging Face Hub, avex 1.x (earthspecies/avex).
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from beatline.core import artefact
from beatline.fetch import hub, services

BOX = "box"
FOLDER = Path("checkpoints")
"""Where files of the release are looked for first, and fetched to by `beatline fetch checkpoint`."""
WEIGHTS = (".pt", ".pth", ".safetensors", ".ckpt", ".bin")
"""How the names of files of weights end."""
PRETRAINED_BYTES = 361_499_833
FINETUNED_BYTES = 363_145_291


@dataclass(frozen=True, kw_only=True)
class Known:
    """A model that somebody may want."""

    name: str
    """What `--model` takes."""
    labels: int | None = None
    """Number of them; 0 for an encoder without a head that beatline reads, None where it is not known."""
    size: int | None = None
    """Of the weights, bytes; None where it is not known."""
    licence: str = ""
    """Of the weights, as their page or their repository states it."""
    figure: str = ""
    """As published, and by whom."""
    sha256: str = ""
    """Of the file of weights."""
    more: tuple[str, ...] = ()
    """Repositories that have the release's file, to be asked before `services.CHECKPOINT_COPIES`."""


def _released(name: str, sha256: str, figure: str = "", more: tuple[str, ...] = ()) -> Known:
    """A file of the BEATs release."""
    is_tuned = "_finetuned_" in name
    return Known(
        name=name,
        labels=527 if is_tuned else 0,
        size=FINETUNED_BYTES if is_tuned else PRETRAINED_BYTES,
        licence="MIT",
        figure=figure,
        sha256=sha256,
        more=more,
    )


BEST = "BEATs_iter3_plus_AS2M_finetuned_on_AS2M_cpt2"
ALIASES = {"beats": BEST}
"""Short names."""

RELEASE = {
    model.name: model
    for model in (
        _released(
            BEST,
            "e5815275a04b6885e7b8af63d120b29bffae2cd2225cf4915e1ec6d819d3022c",
            "AudioSet 48.6 mAP (paper, iter3+)",
            ("WeiChihChen/BEATs_iter3_plus_AS2M_finetuned_on_AS2M_cpt2", "camenduru/beats"),
        ),
        _released(
            "BEATs_iter3_plus_AS2M_finetuned_on_AS2M_cpt1",
            "7f9362028ac6e5c049e8dc314d87e90e4f82a15a8e472deb56af55d7f9b34d6a",
            "AudioSet 48.6 mAP (paper, iter3+)",
        ),
        _released(
            "BEATs_iter3_plus_AS20K_finetuned_on_AS2M_cpt2",
            "6d28b32bfa7bcaaf84ab834186581c2a360c6669e372e808d054cf0ef4d5c2d2",
        ),
        _released(
            "BEATs_iter3_plus_AS20K_finetuned_on_AS2M_cpt1",
            "2c366278dcf835e9bdefad4f7147b0edba4b940c59146fd05dc49a401fa82ff8",
        ),
        _released(
            "BEATs_iter3_finetuned_on_AS2M_cpt2",
            "08374f1cbd49143900b351bc81cd307de386a11f8e609eb3862634e992068b55",
        ),
        _released(
            "BEATs_iter3_finetuned_on_AS2M_cpt1",
            "379369a41d0b3749f746cdcea8036de506cb3aedecce84de7db0a75fda2a4fe7",
        ),
        _released(
            "BEATs_iter2_finetuned_on_AS2M_cpt2",
            "08363b9b5eabeb47b0879c84145b27c603e7e50c116a633fa5b98ade119fc354",
        ),
        _released(
            "BEATs_iter2_finetuned_on_AS2M_cpt1",
            "3a120810c0f6dbfd50a7f48dc03ed077971a50cb2dbb7999695d5c700d03da45",
        ),
        _released(
            "BEATs_iter1_finetuned_on_AS2M_cpt2",
            "2f3a7b65ab232c4f75570d4d17e21e5ebc34b3c40fe1a074f27d199e81354960",
        ),
        _released(
            "BEATs_iter1_finetuned_on_AS2M_cpt1",
            "e0e739e3670bfbb93c51adefb1d02981621397addc979d392aefd3dc53c22cab",
        ),
        _released(
            "BEATs_iter3_plus_AS2M",
            "d43cbfad4d7b56381c061d7a24774f908d4d94c72961f6eb1d9090ff18cd8d34",
            "AS-20K fine-tuned 41.8 mAP (paper)",
        ),
        _released(
            "BEATs_iter3_plus_AS20K",
            "8008b126bb5e8ab08912c60c58847ed676d32e64a5864c922356b7c2522fb2f8",
            "AS-20K fine-tuned 38.9 mAP (paper)",
        ),
        _released(
            "BEATs_iter3",
            "8d1b234032a9ccff353612dc6c20982346dc2968b205b79d97303eb5e77bfb34",
            "AS-20K fine-tuned 38.3 mAP (paper)",
        ),
        _released("BEATs_iter2", "81a23e00aa4878d7e8627ded87ea697fb347c8ceffed21223e0398ed0fa34ad8"),
        _released("BEATs_iter1", "b5f4cc10bcbff63a437c695f33389e6411513b3f7d5cdae8fb62b5005f4a1fcd"),
    )
}
"""The BEATs release's checkpoints by name; `services.CHECKPOINT_COPIES` have copies of some."""

REPOSITORIES = {
    model.name: model
    for model in (
        Known(
            name="espnet/BEATs-AS20K",
            labels=527,
            licence="CC BY 4.0",
            figure="AS-20K 37.46 mAP (ESPnet)",
        ),
        Known(name="espnet/OpenBEATS-Base-i3-as2m", labels=527),
        Known(name="espnet/OpenBEATS-Large-i3-as2m", labels=527),
        Known(name="espnet/OpenBEATS-Large-i2-as20k", labels=527),
        *(
            Known(name=f"shikhar7ssu/OpenBEATs-{size}-i{iteration}", labels=0)
            for size in ("Base", "Large")
            for iteration in (1, 2, 3)
        ),
        Known(name="EarthSpeciesProject/esp-aves2-sl-beats-all", labels=0, licence="CC BY-NC-SA"),
        Known(name="EarthSpeciesProject/esp-aves2-sl-beats-bio", labels=0, licence="CC BY-NC-SA"),
    )
}
"""Models of repositories on the Hugging Face Hub."""


def box_folder() -> Path:
    """Where the model that comes with beatline lies, there or not."""
    return Path(str(files("beatline") / "assets/box"))


def box() -> Known:
    """The model that comes with beatline, which says of itself what it is.

    Raises:
        UserError: `corrupt-artefact`, naming the file that is missing or cut.
    """
    folder = box_folder()
    artefact.verify(folder, select=lambda name: False)
    facts = json.loads((folder / "config.json").read_text())
    about = facts["about"]
    return Known(
        name=BOX,
        labels=facts["labels"],
        size=sum(path.stat().st_size for path in folder.iterdir()),
        licence=about.get("licence", ""),
        figure="random weights, a stand-in" if about.get("stand_in") else about.get("figure", ""),
    )


def models() -> Iterator[Known]:
    """Every known model, the box first."""
    yield box()
    yield from RELEASE.values()
    yield from REPOSITORIES.values()


def copies(name: str) -> tuple[str, ...]:
    """Repositories that may have a file of the release, in the order in which they are asked."""
    return tuple(dict.fromkeys([*RELEASE[name].more, *services.CHECKPOINT_COPIES]))


def here(model: Known) -> Path | None:
    """Where a known model lies on this machine, in `FOLDER` or in huggingface_hub's cache; None where it does
    not.
    """
    if model.name == BOX:
        return box_folder()
    is_released = model.name in RELEASE
    if is_released and (FOLDER / f"{model.name}.pt").is_file():
        return FOLDER / f"{model.name}.pt"
    pattern = f"{model.name}.pt" if is_released else "*"
    for repository in copies(model.name) if is_released else (model.name,):
        for path in (hub.cache_folder(repository) / "snapshots").rglob(pattern):
            if path.suffix in WEIGHTS and path.exists():
                return path
    return None
