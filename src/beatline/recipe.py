"""prepare -> train -> predict -> score -> report: the stages of a run, each resumable on its own.

In: a configuration. Out: the run folder. A stage says what it will do, does only what is missing, and ends
with one line. Its result is a published folder. The manifest of that folder carries the hash of what it was
made from. A stale result is seen and made anew. What needs PyTorch or draws is imported by the stage that
needs it: `prepare` starts without them.
"""

import json
from collections.abc import Callable
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from beatline.config import Config, to_dict
from beatline.core import artefact, remote
from beatline.core.console import is_first, is_whole, progress, read_log, say, show
from beatline.core.errors import UserError
from beatline.data import manifest
from beatline.data.prepare import prepare as prepare_store
from beatline.data.prepare import whole_store
from beatline.data.store import Store
from beatline.evaluate import metrics, ranking
from beatline.evaluate.predictions import Predictions
from beatline.evaluate.score_folder import mean_ap, read_score, score_table

REJECTED_SHOWN = 10  # inputs with a line of their own on the console; the ledger names all


def _manifest_hash(folder: Path) -> str:
    return artefact.sha256_file(artefact.contents_file(folder))


def _need(folder: Path, stage: str) -> None:
    """Raises `missing-stage` where `folder` does not hold what `stage` leaves there."""
    if artefact.read_contents(folder) is None:
        raise UserError(
            "missing-stage",
            f"there is no whole {folder}",
            "the stage before has not run",
            f"run `beatline {stage}` with the same configuration first",
        )


def open_store(config: Config) -> Store:
    """The prepared audio of a run.

    Raises:
        UserError: `missing-stage`, `corrupt-artefact`.
    """
    _need(config.store_folder, "prepare")
    return Store.open(config.store_folder)


def prepare(config: Config) -> None:
    """Decodes every clip once into the store."""
    table = manifest.read(config.data)
    for notice in table.notices:
        say("prepare", notice)
    folder = config.store_folder
    say("prepare", f"{table.inputs} inputs -> {folder}")
    summary = whole_store(table, folder)
    if summary is not None:
        say("prepare", f"{folder} is there already")
    else:
        with artefact.FolderLock(folder.parent), progress("prepare", len(table.clips)) as advance:
            summary = prepare_store(table, folder, max(1, config.train.workers), advance)
    _say_prepared(summary)
    _judge_rejected(summary, str(folder), config.data.strict)


def prepare_on_ray(config: Config, source: str, to: str) -> None:
    """As `prepare`, by Ray. The machines find the files at `source` (the data's own folder when empty). The
    store is `to` (the run's store when empty).
    """
    from beatline.data import ray

    table = manifest.read(config.data)
    target = to or str(config.store_folder)
    say("prepare", f"{table.inputs} inputs -> {target}, on Ray")
    with remote.locked(target), progress("prepare", len(table.clips)) as advance:
        summary = ray.prepare_store(table, target, max(1, config.train.workers), advance, source)
    _say_prepared(summary)
    _judge_rejected(summary, target, config.data.strict)


def _say_prepared(summary: dict[str, Any]) -> None:
    clips = ", ".join(f"{name} {count}" for name, count in summary["splits"].items())
    rejected = sum(summary["rejected"].values())
    reasons = (
        f" ({', '.join(f'{code} {count}' for code, count in sorted(summary['rejected'].items()))})"
        if rejected
        else ""
    )
    say("prepare", f"{summary['ok']} clips ({clips}), {summary['hours']:.2f} h, {rejected} rejected{reasons}")


def _judge_rejected(summary: dict[str, Any], store: str, strict: bool) -> None:
    """Says of the first rejected inputs why, and where the others stand. Under `data.strict` a rejected input
    is an error, now that everything else is prepared.
    """
    count = sum(summary["rejected"].values())
    if not count:
        return
    ledger = f"{store.rstrip('/')}/ledger.jsonl"
    with remote.opened(ledger) as lines:
        rejected = (entry for entry in map(json.loads, lines) if entry["status"] == "rejected")
        for entry in islice(rejected, REJECTED_SHOWN):
            say("rejected", f"{entry['input']}: {entry['reason']}; mend it or leave it out [{entry['code']}]")
    if count > REJECTED_SHOWN:
        say("rejected", f"{count - REJECTED_SHOWN} more, see {ledger}")
    if strict:
        code = max(summary["rejected"], key=summary["rejected"].__getitem__)
        raise UserError(
            code,
            f"{count} of {summary['inputs']} inputs",
            f"rejected, see {ledger}",
            "mend them or leave them out, or set data.strict to false",
        )


def train(config: Config) -> None:
    """Fine-tunes the tagger and publishes `<out>/model`; of several processes each takes its share."""
    from beatline.fetch import checkpoints
    from beatline.train import parallel, start
    from beatline.train.identity import check_identity, identity
    from beatline.train.loop import Trainer
    from beatline.train.start import pick_device
    from beatline.train.teach import write_table
    from beatline.train.teacher import is_table

    folder = config.out / "model"
    # here they meet: the first may have been preparing
    with parallel.process_group(pick_device(config.train.device)) as processes:
        if is_first():
            artefact.recover(folder)
        if artefact.read_contents(folder) is None:
            start.check(config)
        clips = open_store(config)
        init = checkpoints.locate(config.model.init) if config.model.init else None
        parallel.wait()
        about = artefact.read_contents(folder)
        if about is not None:
            artefact.verify(folder)
            if "identity" not in about:
                raise UserError(
                    "run-differs",
                    f"cannot train in {config.out}",
                    f"{folder} is a model that no run has trained here",
                    "move it away, or give another folder with --out",
                )
            check_identity(config.out, about["identity"], identity(config, clips))
            say("train", f"{folder} is there already")
            return
        if config.train.teacher and not is_table(config.train.teacher):
            if processes.is_first:
                write_table(
                    checkpoints.locate(config.train.teacher),
                    clips,
                    config.out / "teacher",
                    pick_device(config.train.device),
                    config.train.precision,
                    config.train.workers,
                )
            parallel.wait()
        Trainer(config, clips, init, processes).run()


def predict(config: Config) -> None:
    """Scores every test clip with the trained model."""
    from beatline.evaluate.predict import predict as predict_split
    from beatline.model.checkpoints.load import load_tagger
    from beatline.model.engines.pytorch import TorchEngine
    from beatline.train.start import pick_device

    clips = open_store(config)
    model_folder = config.out / "model"
    folder = config.out / "predictions"
    _need(model_folder, "train")
    made_from = artefact.hash_json([_manifest_hash(model_folder), _manifest_hash(config.store_folder)])
    if is_whole("predict", folder, "made_from", made_from):
        say("predict", f"{folder} is there already")
        return
    loaded = load_tagger(model_folder).ordered(clips.labels)
    engine = TorchEngine(
        loaded.tagger(), clips.labels, pick_device(config.train.device), config.train.precision, bulk=True
    )
    test = clips.splits["test"]
    say("predict", f"{len(test)} test clips with {model_folder} -> {folder}")
    with progress("predict", len(test)) as advance:
        result = predict_split(engine, clips, "test", config.data.max_seconds, config.train.workers, advance)
    result.save(folder, {"kind": "predictions", "made_from": made_from})
    say("predict", f"{len(result.ids)} clips x {len(result.labels)} labels scored")


def train_counts(clips: Store) -> np.ndarray:
    """Training clips of each label, `(labels,)`."""
    return clips.label_totals(clips.splits["train"])


def score(config: Config) -> None:
    """Every figure of the recipe on the test clips, with intervals."""
    clips = open_store(config)
    source = config.out / "predictions"
    folder = config.out / "score"
    _need(source, "predict")
    made_from = artefact.hash_json([_manifest_hash(source), to_dict(config.score)])
    if is_whole("score", folder, "made_from", made_from):
        say("score", f"{folder} is there already")
    else:
        predictions = Predictions.load(source)
        say(
            "score", f"{len(predictions.ids)} clips, {config.score.resamples} bootstrap resamples -> {folder}"
        )
        order = ranking.frequency_order(train_counts(clips))
        figures = metrics.figures(
            predictions.scores,
            predictions.targets,
            order=order,
            clips_hash=predictions.clips_hash,
            resamples=config.score.resamples,
        )
        others: dict[str, Any] = {}
        if config.score.baseline:
            from beatline.train.baseline import baseline_scores

            simple = baseline_scores(clips, clips.splits["train"], clips.splits["test"])
            others["log-mel statistics + logistic regression"] = mean_ap(simple, predictions.targets)
        with artefact.publish(folder, {"kind": "score", "made_from": made_from}) as partial:
            (partial / "figures.json").write_text(
                json.dumps({"figures": figures.to_dict(), "baselines": others}, indent=1) + "\n"
            )
            (partial / "labels.csv").write_text(metrics.label_table(figures, clips.labels))
    show(score_table(*read_score(folder)))


def write_report(config: Config) -> None:
    """RESULTS.md, the table per label and report.html."""
    from beatline.evaluate import report

    clips = open_store(config)
    folder = config.out / "report"
    _need(config.out / "predictions", "predict")
    _need(config.out / "score", "score")
    made_from = artefact.hash_json([_manifest_hash(config.out / name) for name in ("predictions", "score")])
    if is_whole("report", folder, "made_from", made_from):
        say("report", f"{folder} is there already")
    else:
        figures, baselines = read_score(config.out / "score")
        say("report", f"{figures.n_instances} test clips, {figures.n_labels} labels -> {folder}")
        log = _training_log(config.out)
        inputs = report.ReportInputs(
            title=config.out.name,
            figures=figures,
            predictions=Predictions.load(config.out / "predictions"),
            baseline=baselines,
            log=log,
            config=to_dict(config),
            data_summary=clips.summary,
            validation_rule=clips.summary["validation"],
            train_positives=train_counts(clips),
            samples_of=clips.samples_of,
            environment=report.environment(),
            about={"made_from": made_from},
        )
        report.write(folder, inputs)
    say("report", f"{folder / 'report.html'}")


def _training_log(out: Path) -> list[dict[str, Any]]:
    """The records of a run's training log, none where there is no log. Raises `corrupt-artefact` where the
    model was published with another log.
    """
    path = out / "train/log.jsonl"
    facts = (artefact.read_contents(out / "model") or {}).get("run_files", {}).get("train/log.jsonl")
    if not path.exists() or facts is None:
        return []
    if cause := artefact.changed(path, facts):
        raise UserError(
            "corrupt-artefact",
            f"cannot use {path}",
            cause,
            "restore it, or move it away for a report without learning curves",
        )
    return read_log(path)


def _alone(stage: Callable[[Config], None]) -> Callable[[Config], None]:
    """The stage under the run folder's lock, which of several processes the first holds for all."""

    def locked(config: Config) -> None:
        with artefact.FolderLock(config.out) if is_first() else nullcontext():
            stage(config)

    return locked


def _first(stage: Callable[[Config], None]) -> Callable[[Config], None]:
    """The stage in the first of several processes; the others have nothing to do in it."""
    return lambda config: stage(config) if is_first() else None


STAGES: dict[str, Callable[[Config], None]] = {
    "prepare": _first(prepare),
    "train": _alone(train),
    "predict": _first(_alone(predict)),
    "score": _first(_alone(score)),
    "report": _first(_alone(write_report)),
}


def run(config: Config) -> None:
    """All stages in order; each does only what is missing.

    Raises:
        UserError: `bad-config` at once for what the training to come could not use; as the stages.
    """
    if artefact.read_contents(config.out / "model") is None:
        from beatline.train import start

        start.check(config)
    for stage in STAGES.values():
        stage(config)
