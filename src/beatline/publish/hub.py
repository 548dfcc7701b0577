"""A run, or any model -> a folder that the Hugging Face Hub, transformers and `beatline.load` read.

In: a run folder, a model folder or a checkpoint of any family. Out: weights, configuration, labels, a model
card, and the calibration if the model has it. The folder is a model folder whose `config.json` also answers
transformers. `push` sends it to a repository by `upload`.
"""

import json
import math
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from beatline.audio.samples import SAMPLE_RATE
from beatline.core import artefact
from beatline.core.artefact import sha256_file
from beatline.core.errors import UserError
from beatline.core.labels import LabelSet
from beatline.evaluate.metrics import Figures
from beatline.evaluate.predictions import Predictions
from beatline.evaluate.score_folder import mean_ap, read_score
from beatline.fetch import checkpoints
from beatline.model.checkpoints import own
from beatline.model.checkpoints.load import load_tagger
from beatline.model.checkpoints.loaded import Loaded
from beatline.publish import model_card, upload
from beatline.tag.calibration import Calibration, calibration_folder, model_hash

CARD = "README.md"
FEATURES = "preprocessor_config.json"
PROBLEMS = {"multi-label": "multi_label_classification", "single-label": "single_label_classification"}


def pack(source: Path | str, folder: Path, name: str = "", licence: str = "") -> None:
    """Writes the folder that `push` uploads, whole or not at all.

    Args:
        source: A run folder, whose score, data and calibration go into the card. Or a model folder, a
            checkpoint, a hub repository.
        name: The repository's name, for the card; the folder's name where left out.
        licence: Of the weights, as the Hub calls it (`cc-by-4.0`).

    Raises:
        UserError: `not-writable`, `disk-full`; `missing-stage` where the run's score is of another model; as
            `load_checkpoint`.
    """
    artefact.refuse_existing(folder)
    with artefact.disk_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as partial:
            _write(Path(source), Path(partial) / "model", name or folder.name, licence)
            (Path(partial) / "model").rename(folder)


def push(source: Path | str, repository: str, private: bool = False, licence: str = "") -> str:
    """The address of the commit with which a repository on the Hugging Face Hub holds the model. A missing
    repository is made.

    Raises:
        UserError: As `pack` and `upload.upload`.
    """
    with tempfile.TemporaryDirectory(prefix="beatline-") as temporary:
        folder = Path(temporary) / "model"
        pack(source, folder, repository, licence)
        files = {
            path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()
        }
        return upload.upload(
            repository,
            files,
            lambda path: path.startswith(checkpoints.CALIBRATION) or path == artefact.OLDER,
            private,
            "Model by beatline",
        )


def _write(source: Path, folder: Path, name: str, licence: str) -> None:
    loaded = load_tagger(source)
    tagger = loaded.tagger()
    labels = loaded.labels
    about = _without_folders(
        loaded.about
        if loaded.family == "beatline"
        else {"converted_from": loaded.source.name, "family": loaded.family}
    )
    run = source if (source / "model").is_dir() else None
    store = _store(run, loaded) if run else None
    figures, baselines = _score(run, store) if run else (None, {})
    calibration = (
        Calibration.load(source, labels) if artefact.read_contents(calibration_folder(source)) else None
    )
    facts = model_card.Facts(
        name=name,
        labels=labels,
        tagger=tagger,
        family=loaded.family,
        about=about,
        figures=figures,
        baselines=baselines,
        data=json.loads((store / "summary.json").read_text()) if store else None,
        calibration=calibration,
        licence=licence,
    )
    with artefact.publish(folder, {"kind": "model", "labels_hash": labels.hash, "open": True}) as partial:
        own.write_model(partial, tagger.state_dict(), tagger, labels, about)
        file = partial / own.ABOUT
        file.write_text(
            json.dumps(json.loads(file.read_text()) | _for_transformers(labels, tagger.task), indent=1) + "\n"
        )
    # what others than beatline read, or edit, is not in the manifest, nor what names the model by it
    (folder / FEATURES).write_text(
        json.dumps(
            {"feature_extractor_type": "BeatlineFeatureExtractor", "sampling_rate": SAMPLE_RATE}, indent=1
        )
        + "\n"
    )
    if calibration is not None:
        replace(
            calibration, about=_without_folders(calibration.about) | {"model_hash": model_hash(folder)}
        ).save(folder / "calibration")
    (folder / CARD).write_text(model_card.card(facts), encoding="utf-8")


def _for_transformers(labels: LabelSet, task: str) -> dict[str, Any]:
    """What `beatline.transformers` and the Hub's pages read in `config.json`."""
    names = [
        label.name if labels.names.count(label.name) == 1 else f"{label.name} ({label.mid})"
        for label in labels.labels
    ]
    return {
        "model_type": "beatline",
        "architectures": ["BeatlineForAudioClassification"],
        "problem_type": PROBLEMS[task],
        "id2label": {str(i): name for i, name in enumerate(names)},
        "label2id": {name: i for i, name in enumerate(names)},
        "dtype": "float32",
    }


def _without_folders(value: Any) -> Any:
    """The same value with only the last part of every absolute path, which is nobody else's business."""
    if isinstance(value, dict):
        return {name: _without_folders(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_without_folders(part) for part in value]
    return Path(value).name if isinstance(value, str) and value.startswith(("/", "~")) else value


def _store(run: Path, loaded: Loaded) -> Path | None:
    """The prepared audio that the model was trained on, if it is still there."""
    content = (artefact.read_contents(run / "model") or {}).get("identity", {}).get("store")
    for folder in (run / "store", Path((loaded.about.get("config") or {}).get("store") or run / "store")):
        about = artefact.read_contents(folder)
        if about is not None and about.get("content") == content:
            artefact.verify(folder, select=lambda name: name == "summary.json")
            return folder
    return None


def _score(run: Path, store: Path | None) -> tuple[Figures | None, dict[str, float]]:
    """The run's figures and its baselines' mAP; neither where it was not scored.

    Raises:
        UserError: `missing-stage` where what was scored is not this model, as far as the run can tell;
            `corrupt-artefact`.
    """
    if artefact.read_contents(run / "score") is None:
        return None, {}
    artefact.verify(run / "score")
    figures, baselines = read_score(run / "score")
    predictions = (
        Predictions.load(run / "predictions") if artefact.read_contents(run / "predictions") else None
    )
    fresh = (
        predictions is not None
        and predictions.clips_hash == figures.clips_hash
        and math.isclose(mean_ap(predictions.scores, predictions.targets), figures.mAP, rel_tol=1e-9)
    )
    if fresh and store is not None:
        made_from = artefact.hash_json(
            [sha256_file(artefact.contents_file(folder)) for folder in (run / "model", store)]
        )
        fresh = (artefact.read_contents(run / "predictions") or {}).get("made_from") == made_from
    if not fresh:
        raise UserError(
            "missing-stage",
            f"cannot use the figures in {run / 'score'}",
            "they are not those of the model that is there now",
            "run `beatline run` with the same configuration first",
        )
    return figures, baselines
