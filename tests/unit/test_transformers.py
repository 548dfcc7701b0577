"""A packed folder in transformers' own Auto classes, pipeline and Trainer says what beatline says, and
learns.
"""

from importlib.resources import files

import numpy as np
import pytest
import soundfile
import torch

from beatline.model.checkpoints.own import save
from beatline.publish import hub as publish
from tests.helpers.models import LABELS, make_tagger

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


def clips_of(start):
    return sorted(
        str(path)
        for path in (files("beatline") / "assets/mini-audioset/audio").iterdir()
        if path.name.startswith(start)
    )


CLIPS = clips_of("test")[:3]


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("packed")
    save(folder / "run/model", make_tagger(), LABELS, {})
    publish.pack(str(folder / "run"), folder / "for-a-hub")
    return str(folder / "for-a-hub")


def test_the_pipeline_scores_as_beatline_does(packed):
    from transformers import pipeline

    import beatline.transformers

    classify, tagger = pipeline("audio-classification", model=packed), beatline.load(packed, engine="torch")
    for clip in CLIPS:
        samples, rate = soundfile.read(clip, dtype="float32")
        got = {
            one["label"]: one["score"] for one in classify({"raw": samples, "sampling_rate": rate}, top_k=3)
        }
        wanted = {label.name: score for label, score in tagger(clip).top(3)}
        assert got.keys() == wanted.keys() and all(
            got[name] == pytest.approx(wanted[name], abs=1e-6) for name in wanted
        )


def test_a_padded_batch_equals_its_clips_alone(packed):
    from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

    import beatline.transformers  # noqa: F401

    features, model = (
        AutoFeatureExtractor.from_pretrained(packed),
        AutoModelForAudioClassification.from_pretrained(packed).eval(),
    )
    clips = [soundfile.read(CLIPS[0], dtype="float32")[0][:length] for length in (64_000, 20_123, 3_000)]
    with torch.no_grad():
        together = model(**features(clips, sampling_rate=16_000, return_tensors="pt")).logits.numpy()
        alone = [
            model(**features(clip, sampling_rate=16_000, return_tensors="pt")).logits.numpy()[0]
            for clip in clips
        ]
    np.testing.assert_allclose(together, np.stack(alone), atol=1e-5)


def test_what_transformers_saves_it_loads_with_the_same_bits(packed, tmp_path):
    from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

    import beatline.transformers  # noqa: F401

    def scores(folder):
        features, model = (
            AutoFeatureExtractor.from_pretrained(folder),
            AutoModelForAudioClassification.from_pretrained(folder),
        )
        with torch.no_grad():
            return (
                model(
                    **features(
                        soundfile.read(CLIPS[0], dtype="float32")[0],
                        sampling_rate=16_000,
                        return_tensors="pt",
                    )
                ).logits.sigmoid(),
                features,
                model,
            )

    before, features, model = scores(packed)
    features.save_pretrained(tmp_path)
    model.save_pretrained(tmp_path)
    after, _, again = scores(tmp_path)
    assert torch.equal(after, before) and again.config.id2label == {0: "Bark", 1: "Rain", 2: "Speech"}
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("problem", ["multi_label_classification", "single_label_classification"])
def test_transformers_trainer_fine_tunes_it_on_labels_of_one_s_own(packed, tmp_path, problem):
    from transformers import AutoFeatureExtractor, AutoModelForAudioClassification, Trainer, TrainingArguments

    import beatline.transformers  # noqa: F401

    names = {0: "Bird", 1: "Thunder"}
    features = AutoFeatureExtractor.from_pretrained(packed)
    model = AutoModelForAudioClassification.from_pretrained(
        packed, id2label=names, problem_type=problem, ignore_mismatched_sizes=True
    )
    clips = [
        (soundfile.read(path, dtype="float32")[0][: 20_000 - 100 * place], label)
        for label, kind in names.items()
        for place, path in enumerate(clips_of(f"train_{kind.lower()}"))
    ]

    def batch(rows):
        labels = torch.tensor([label for _, label in rows])
        return {
            **features([clip for clip, _ in rows], sampling_rate=16_000, return_tensors="pt"),
            "labels": labels if problem.startswith("single") else torch.eye(2)[labels],
        }

    settings = TrainingArguments(
        str(tmp_path),
        max_steps=24,
        learning_rate=0.005,
        per_device_train_batch_size=20,
        logging_steps=1,
        remove_unused_columns=False,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
    )
    trainer = Trainer(model, settings, train_dataset=clips, data_collator=batch)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert (
        losses[0] == pytest.approx(np.log(2), abs=1e-3) and losses[-1] < 0.5 * losses[0]
    )  # a new head is zero
    trainer.save_model(str(tmp_path / "tuned"))
    tuned = AutoModelForAudioClassification.from_pretrained(tmp_path / "tuned")
    assert tuned.config.id2label == names and all(
        torch.equal(tensor, tuned.state_dict()[name]) for name, tensor in model.state_dict().items()
    )
