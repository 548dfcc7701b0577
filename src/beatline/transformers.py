"""`import beatline.transformers`: beatline's models for the Auto classes and the pipeline of transformers.

The name stands in the cards of models that were pushed; what it imports is in `publish`.
"""

from beatline.publish.transformers import (
    BeatlineConfig,
    BeatlineFeatureExtractor,
    BeatlineForAudioClassification,
)

__all__ = ["BeatlineConfig", "BeatlineFeatureExtractor", "BeatlineForAudioClassification"]
