"""A packed folder in transformers' own Auto classes and pipeline says what beatline says."""

from importlib.resources import files

import numpy as np
import pytest
import soundfile
import torch

from beatline import publish
from beatline.model.checkpoint import save
from tests.unit.test_engine import LABELS, make_tagger

pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning"), pytest.mark.filterwarnings("ignore::FutureWarning")]
CLIPS = sorted(str(path) for path in (files("beatline") / "data/mini-audioset/audio").iterdir() if path.name.startswith("test"))[:3]


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
        got = {one["label"]: one["score"] for one in classify({"raw": samples, "sampling_rate": rate}, top_k=3)}
        wanted = {label.name: score for label, score in tagger(clip).top(3)}
        assert got.keys() == wanted.keys() and all(got[name] == pytest.approx(wanted[name], abs=1e-6) for name in wanted)


def test_a_padded_batch_equals_its_clips_alone(packed):
    from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

    import beatline.transformers  # noqa: F401

    features, model = AutoFeatureExtractor.from_pretrained(packed), AutoModelForAudioClassification.from_pretrained(packed).eval()
    clips = [soundfile.read(CLIPS[0], dtype="float32")[0][:length] for length in (64_000, 20_123, 3_000)]
    with torch.no_grad():
        together = model(**features(clips, sampling_rate=16_000, return_tensors="pt")).logits.numpy()
        alone = [model(**features(clip, sampling_rate=16_000, return_tensors="pt")).logits.numpy()[0] for clip in clips]
    np.testing.assert_allclose(together, np.stack(alone), atol=1e-5)
