"""The end of a run: `<run>/model`, the mean of the last epochs or the best of all."""

from typing import Any

from beatline.config import Config, to_dict
from beatline.core import artefact
from beatline.core.console import say
from beatline.data.store import Store
from beatline.model.checkpoints.own import write_model
from beatline.model.tagger import Tagger
from beatline.train.checkpoints import Checkpoints, Loop

RUN_FILES = ("config.yaml", "train/log.jsonl")  # these have no list of contents of their own


def publish_model(
    config: Config,
    store: Store,
    tagger: Tagger,
    checkpoints: Checkpoints,
    loop: Loop,
    identity: dict[str, Any],
    best: str,
) -> None:
    """Averages the last epochs, or takes the best, and publishes `<out>/model`.

    Args:
        best: The figure by which the objective judges an epoch.

    Raises:
        UserError: `corrupt-artefact` for an epoch's weights; `disk-full`, `not-writable`.
    """
    average = config.train.average
    epochs = list(range(max(0, loop.epoch - average), loop.epoch)) if average else [loop.best_epoch]
    if average:
        chosen = f"mean of epochs {epochs[0] + 1} to {epochs[-1] + 1}"
    elif len(store.splits["val"]):
        chosen = f"epoch {epochs[0] + 1}, the best on validation"
    else:
        chosen = "the last epoch"
    if config.train.ema:
        chosen += f", running mean of the weights by {config.train.ema:g}"
    about = {
        "config": to_dict(config),
        "chosen": chosen,
        "steps": loop.step,
        f"best_validation_{best}": loop.best,
    }
    facts = {
        "kind": "model",
        "labels_hash": store.labels.hash,
        "identity": identity,
        "run_files": {name: artefact.facts_of(config.out / name) for name in RUN_FILES},
    }
    with artefact.publish(config.out / "model", facts) as partial:
        write_model(partial, checkpoints.mean_of_epochs(epochs), tagger, store.labels, about)
    say("train", f"{config.out / 'model'}: {chosen}")
