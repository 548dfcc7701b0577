"""What schemathesis cannot know of the server's inputs: sound, and names of labels. Loaded by it through
SCHEMATHESIS_HOOKS; see `serve_fuzz`.
"""

import io

import numpy as np
import schemathesis
import soundfile
from hypothesis import strategies


def wav(samples: int) -> bytes:
    """A file of noise."""
    out = io.BytesIO()
    soundfile.write(out, 0.1 * np.random.default_rng(samples).standard_normal(samples), 16_000, format="WAV")
    return out.getvalue()


schemathesis.openapi.media_type("audio/*", strategies.sampled_from([1, 100, 3200, 16_000, 40_000]).map(wav))
schemathesis.openapi.format("label", strategies.sampled_from(["Bark", "/m/06mb1", "Animal", "rain"]))
