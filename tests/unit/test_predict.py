"""One scorer: order kept, batches do not matter, and a clip in a batch equals the clip alone."""

import numpy as np
import pytest
import soundfile
import torch

from beatline import recipe
from beatline.data.store import Store
from beatline.evaluate import predict
from beatline.evaluate.predictions import Predictions
from beatline.model.checkpoints.load import load_checkpoint
from beatline.model.engines.pytorch import TorchEngine
from beatline.model.geometry import tile_short
from beatline.model.tagger import Tagger, initialise_tagger
from beatline.tag.tagger import AudioTagger
from tests.helpers.models import CONFIG, LABELS
from tests.helpers.tiny import tiny, write_data


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    folder = tmp_path_factory.mktemp("predict")
    settings = tiny(write_data(folder / "data"), folder / "run")
    recipe.prepare(settings)
    store = Store.open(settings.store_folder)
    tagger = initialise_tagger(
        Tagger(settings.model.encoder, len(store.labels)), torch.Generator().manual_seed(0)
    )
    return store, tagger


def test_length_batches_cover_everything_and_bound_the_padded_audio():
    lengths = np.array([160_000] * 50 + [16_000] * 400 + [16_000 * 900])
    engine = TorchEngine(Tagger(CONFIG, len(LABELS)), LABELS, bulk=True)
    engine.seconds_at_once = 320
    groups = engine.grouped(lengths)
    assert sorted(np.concatenate(groups)) == list(range(len(lengths)))
    assert all(len(g) == 1 or len(g) * lengths[g].max() <= 320 * 16_000 for g in groups)
    assert len(groups[0]) == 1 and lengths[groups[0][0]] == lengths.max()


def test_scores_are_those_of_each_clip_alone(scene):
    store, tagger = scene
    clips = np.arange(len(store.ids))[::-1]
    done = []
    engine = TorchEngine(tagger.train(), store.labels, bulk=True)
    scores = predict.score_clips(engine, store, clips, advance=done.append)
    assert sum(done) == len(clips)
    with torch.no_grad():
        for row, clip in zip(scores, clips, strict=True):
            waveform = torch.from_numpy(tile_short(store.samples(int(clip))).astype(np.float32) / 32768)[None]
            assert np.abs(tagger.score(tagger(waveform))[0].numpy() - row).max() < 1e-6


def test_bfloat16_stays_near_float32(scene):
    store, tagger = scene
    both = [
        predict.score_clips(
            TorchEngine(tagger, store.labels, precision=precision, bulk=True), store, np.arange(12)
        )
        for precision in ("float32", "bfloat16")
    ]
    assert 0 < np.abs(both[0] - both[1]).max() < 0.02


def test_long_clips_are_scored_in_windows_and_no_others(scene):
    store, tagger = scene
    longest = 0.3
    whole, cut = (
        predict.predict(TorchEngine(tagger, store.labels, bulk=True), store, "test", **options).scores
        for options in ({}, {"longest": longest})
    )
    clips = store.splits["test"]
    is_long = store.lengths[clips] > longest * 16_000
    assert 0 < is_long.sum() < len(clips)
    assert np.abs(whole[~is_long] - cut[~is_long]).max() < 1e-6  # other batches, other last bits on some CPUs
    tag = AudioTagger(TorchEngine(tagger, store.labels), longest, longest / 2)
    for row, before, clip in zip(cut[is_long], whole[is_long], clips[is_long], strict=True):
        (tagged,) = tag.tag([(store.samples(int(clip)).astype(np.float32) / 32768, 16_000)])
        assert (
            len(tagged.window_scores) > 1
            and np.abs(tagged.scores - row).max() < 1e-6 < np.abs(before - row).max()
        )


def test_a_runs_test_clips_that_training_would_not_take_are_scored_in_windows(tmp_path):
    csv = write_data(tmp_path / "data")
    soundfile.write(tmp_path / "data/long.wav", np.random.default_rng(1).normal(0, 0.1, 40_000), 16_000)
    csv.write_text(csv.read_text() + "long.wav,Noise,test\n")
    settings = tiny(csv, tmp_path / "run", data__max_seconds="1", train__epochs="1")
    for stage in (recipe.prepare, recipe.train, recipe.predict):
        stage(settings)
    store, tagger = Store.open(settings.store_folder), load_checkpoint(settings.out / "model").tagger()
    found = Predictions.load(settings.out / "predictions")
    engine = TorchEngine(tagger, store.labels, bulk=True)
    expected = predict.predict(engine, store, "test", longest=1.0)
    whole = predict.predict(engine, store, "test")
    assert np.array_equal(found.scores, expected.scores) and (np.abs(found.scores - whole.scores) > 1e-5).any(
        axis=1
    ).tolist() == [name == "long.wav" for name in found.ids]


def test_predictions_of_a_split(scene):
    store, tagger = scene
    result = predict.predict(TorchEngine(tagger, store.labels, bulk=True), store, "test")
    assert result.ids == tuple(store.ids[i] for i in store.splits["test"]) and result.targets.dtype == bool
    assert np.array_equal(result.targets, store.targets(store.splits["test"]) > 0.5)
