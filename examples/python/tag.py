"""Tags a sound file with an export: onnxruntime, soundfile and NumPy, no beatline.

python tag.py EXPORT FILE       of any form that libsndfile reads, at 16 kHz, some ten seconds at most
"""

import json
import os
import sys

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before onnxruntime is imported

import numpy as np
import onnxruntime
import soundfile

folder, file = sys.argv[1:]
session = onnxruntime.InferenceSession(f"{folder}/model.onnx", providers=["CPUExecutionProvider"])
about = session.get_modelmeta().custom_metadata_map
names = json.loads(about["label_names"])

samples, rate = soundfile.read(file, dtype="float32", always_2d=True)
if rate != int(about["sample_rate"]):
    sys.exit(
        f"{file} has {rate} samples a second, the model wants {about['sample_rate']}: resample it, with "
        f"soxr for one"
    )
waveform = samples.mean(axis=1)
waveform = np.tile(
    waveform,
    -(-int(about["min_samples"]) // len(waveform)) if len(waveform) < int(about["min_samples"]) else 1,
)

# A batch of one. Of several clips: zeros after each clip's end, and where that is in `lengths`.
(scores,) = session.run(["scores"], {"waveforms": waveform[None], "lengths": np.array([len(waveform)])})
for best in np.argsort(-scores[0])[:5]:
    print(f"{scores[0, best]:.6f}  {names[best]}")
