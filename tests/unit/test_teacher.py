"""A teacher's table: which rows and patches a batch learns from, and the loss by hand."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from beatline import recipe
from beatline.core.errors import UserError
from beatline.data.store import Store
from beatline.model.geometry import STEP_SAMPLES, step_count
from beatline.train import augment
from beatline.train.batches import Crop, make_batch
from beatline.train.objectives.teacher import SCALE, Teacher
from beatline.train.parallel import ALONE
from beatline.train.start import new_tagger
from beatline.train.teacher import TeacherTable, is_table
from tests.helpers.teachers import PATCHES, WIDTH, write_table
from tests.helpers.tiny import tiny, write_data


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher")
    settings = tiny(write_data(folder / "data"), folder / "run", train__objective="teacher")
    recipe.prepare(settings)
    write_table(folder / "table", Store.open(settings.store_folder))
    return replace(settings, train=replace(settings.train, teacher=folder / "table"))


@pytest.fixture(scope="module")
def store(config):
    return Store.open(config.store_folder)


@pytest.fixture(scope="module")
def table(config, store):
    return TeacherTable(config.train.teacher, store)


def with_table(config, folder):
    return replace(config, train=replace(config.train, teacher=folder))


def sigmoid(values):
    return 1 / (1 + np.exp(-values))


def cross_entropy(scores, targets):
    return -(targets * np.log(scores) + (1 - targets) * np.log(1 - scores))


def test_rows_are_found_by_id_and_labels_by_mid(config, store, table):
    raw = np.load(config.train.teacher / "scores.npy")
    clips = np.array([0, 3])
    expected = raw[::-1][clips][:, :, 1:]
    assert np.array_equal(table.scores(clips), expected.astype(np.float32))
    assert table.patches == PATCHES and table.width == WIDTH and table.hop == STEP_SAMPLES


def test_patches_beyond_a_row_are_nan(table):
    part = table.scores(np.array([0]), np.array([2 * STEP_SAMPLES]), 3)
    assert not np.isnan(part[0, 0]).any() and np.isnan(part[0, 1:]).all()


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        ({"labels": ["Tone"]}, "label-mismatch", "lacks 2 of the 3 labels, the first is"),
        ({"patch_seconds": 0.3}, "bad-table", "0.3, not a multiple of 0.16 s"),
        ({"patch_seconds": -0.16}, "bad-table", "not a multiple"),
        ({"hop_seconds": None}, "bad-table", "must both be null"),
        ({"hop_seconds": "often"}, "bad-table", "another form"),
        ({"labels": None}, "bad-table", "another form"),
    ],
)
def test_a_table_that_does_not_suit_is_refused_in_one_line(store, tmp_path, change, code, said):
    folder = write_table(tmp_path / "table", store)
    about = json.loads((folder / "teacher.json").read_text()) | change
    (folder / "teacher.json").write_text(json.dumps(about))
    with pytest.raises(UserError, match=said) as caught:
        TeacherTable(folder, store)
    assert caught.value.code == code and "\n" not in str(caught.value)


@pytest.mark.parametrize("array", [np.zeros((2, 3, 4), np.float16), np.zeros((12, 3), np.float16), None])
def test_scores_of_another_form_are_refused(store, tmp_path, array):
    folder = write_table(tmp_path / "table", store)
    (folder / "scores.npy").write_bytes(b"no array") if array is None else np.save(
        folder / "scores.npy", array
    )
    with pytest.raises(UserError, match=r"scores\.npy") as caught:
        TeacherTable(folder, store)
    assert caught.value.code == "bad-table"


def test_a_clip_without_a_row_is_named(store, tmp_path):
    folder = write_table(tmp_path / "table", store)
    ids = (folder / "ids.txt").read_text().replace(f"{store.ids[0]}\n", "stranger\n")
    (folder / "ids.txt").write_text(ids)
    with pytest.raises(UserError, match=f"no row for 1 clips of train and val, the first is {store.ids[0]}"):
        TeacherTable(folder, store)


def test_the_objective_needs_a_teacher(config, store):
    with pytest.raises(UserError, match="none is given"):
        Teacher.check(with_table(config, None))
    assert is_table(config.train.teacher) and not is_table(config.out)


def batch_of(store, mixed: bool = True, crop: Crop | None = None):
    order = ("mixup",) if mixed else ()
    settings = augment.named(replace(augment.AugmentConfig(), order=order, mixup_probability=1.0))
    clips = store.splits["train"]
    return make_batch(store, clips, slice(None), settings, 0, 0, 0, crop=crop or Crop())


@pytest.mark.parametrize("mixed", [False, True])
def test_the_loss_is_the_formula(config, store, table, mixed):
    settings = replace(config.train, teacher_clips=0.7, teacher_patches=0.3, teacher_embeddings=2.0)
    objective = Teacher(replace(config, train=settings), store)
    objective.begin(new_tagger(config, store.labels), is_new=True)
    batch = batch_of(store, mixed)
    labels = len(store.labels)
    outputs = torch.randn(len(batch.ids), 1 + 2, labels + WIDTH, generator=torch.Generator().manual_seed(0))
    loss = float(objective.loss(outputs, batch))

    said = outputs.double().numpy()
    weights = batch.weights.double().numpy()[:, None, None]
    mean, deviation = objective.map.mean.double().numpy(), objective.map.deviation.double().numpy()
    own, partners = batch.clips[batch.rows], batch.clips[batch.partners]
    scores = weights * table.scores(own)[:, :2] + (1 - weights) * table.scores(partners)[:, :2]
    vectors = weights * table.embeddings(own)[:, :2] + (1 - weights) * table.embeddings(partners)[:, :2]
    expected = 0.0
    for row, steps in enumerate(step_count(batch.lengths.numpy())):
        whole = cross_entropy(sigmoid(said[row, 0, :labels]), scores[row].mean(0)).sum()
        within = [patch for patch in range(2) if patch == 0 or patch + 2 <= steps]
        each = [cross_entropy(sigmoid(said[row, 1 + p, :labels]), scores[row, p]).sum() for p in within]
        errors = [
            ((said[row, 1 + p, labels:] - (vectors[row, p] - mean) / deviation) ** 2).mean() for p in within
        ]
        expected += SCALE * (0.7 * whole + 0.3 * np.mean(each)) + 2.0 * np.mean(errors)
    assert loss == pytest.approx(expected, rel=1e-5)


def test_a_patch_is_the_mean_of_its_time_steps(config, store):
    objective, tagger = Teacher(config, store), new_tagger(config, store.labels).eval()
    objective.begin(tagger, is_new=True)
    fbank = torch.randn(2, 5 * 16, 128, generator=torch.Generator().manual_seed(0))
    outputs = objective.outputs(tagger, fbank, None, ())
    steps = tagger.encoder(fbank).unflatten(1, (5, 8)).mean(2)
    assert outputs.shape == (2, 1 + 4, len(store.labels) + WIDTH)
    for patch in range(4):
        feature = steps[:, patch : patch + 2].mean(1)
        wanted = torch.cat([tagger.logits(feature), objective.map(feature)], 1)
        assert torch.allclose(outputs[:, 1 + patch], wanted, atol=1e-5)
    clip = tagger.logits(tagger.embed(fbank))
    assert torch.allclose(outputs[:, 0, : len(store.labels)], clip, atol=1e-5)


def test_a_crop_learns_from_the_patches_it_holds(config, store, table):
    crop = Crop(int(0.21 * 16_000), table.hop)
    batch = batch_of(store, mixed=False, crop=crop)
    assert (
        (batch.begins % table.hop == 0).all()
        and batch.begins.any()
        and batch.samples.shape[1] <= crop.samples
    )
    for row, clip, begin in zip(batch.samples, batch.clips, batch.begins, strict=True):
        whole = store.samples(int(clip))
        if len(whole) >= crop.samples:
            assert np.array_equal(row.numpy()[: crop.samples], whole[begin : begin + crop.samples])
    scores = table.scores(batch.clips, batch.begins, 1)[:, 0]
    raw = table.scores(batch.clips)
    first = batch.begins // table.hop
    assert np.array_equal(scores, raw[np.arange(len(raw)), first], equal_nan=True)


def test_a_table_of_whole_clips_needs_no_patches(config, store, tmp_path):
    folder = write_table(tmp_path / "table", store, patch_seconds=None, hop_seconds=None)
    objective, tagger = Teacher(with_table(config, folder), store), new_tagger(config, store.labels)
    objective.begin(tagger, is_new=True)
    outputs = objective.outputs(tagger, torch.randn(7, 40, 128), None, ())
    assert outputs.shape == (7, 2, len(store.labels) + WIDTH)
    batch = batch_of(store, mixed=False)
    assert torch.isfinite(objective.loss(outputs, batch))
    more = with_table(config, folder)
    more = replace(more, train=replace(more.train, teacher_patches=9.0))
    other = Teacher(more, store)
    other.map = objective.map
    assert objective.loss(outputs, batch) == other.loss(outputs, batch)


def test_the_head_begins_with_the_teachers_means(config, store, table):
    tagger = new_tagger(config, store.labels)
    Teacher(config, store).begin(tagger, is_new=True)
    means = table.scores(store.splits["train"]).mean((0, 1)).clip(1e-5, 0.5)
    assert np.allclose(sigmoid(tagger.head.bias.detach().numpy()), means, atol=1e-5)
    known = new_tagger(config, store.labels)
    before = known.head.bias.clone()
    Teacher(config, store).begin(known, is_new=False)
    assert torch.equal(known.head.bias, before)


def test_validation_is_against_the_teacher(config, store):
    objective, tagger = Teacher(config, store), new_tagger(config, store.labels)
    clips = store.splits["train"]
    figures = objective.validate(tagger, clips, ALONE)
    assert figures.keys() == {"mAP", "correlation", "top", "labels"}
    objective.scores = lambda *_: np.nanmean(objective.table.scores(clips), axis=1)
    figures = objective.validate(tagger, clips, ALONE)
    assert figures["correlation"] == pytest.approx(1) and figures["top"] == 1 and figures["mAP"] > 0.5
