// An export in the browser: nothing is uploaded, the sound stays on this machine.
//
//   const tagger = await Tagger.load("exported");
//   const best = await tagger.tag(await waveform(file));      [{ mid, name, score }, ...], best first

import * as ort from "./node_modules/onnxruntime-web/dist/ort.wasm.min.mjs";

const RATE = 16000;
const MIN_SAMPLES = 3200;
const WEIGHTS = "model.safetensors";

ort.env.wasm.numThreads = 1; // more threads need a page that is cross-origin isolated

export class Tagger {
  constructor(session, labels) {
    this.session = session;
    this.labels = labels;
  }

  /** A tagger from the address of an exported folder, or of beatline's own box, whose weights lie beside its graph. */
  static async load(folder) {
    const { files } = await fetch(`${folder}/contents.json`).then((answer) => answer.json());
    const externalData = files[WEIGHTS] && [{ path: WEIGHTS, data: `${folder}/${WEIGHTS}` }];
    const [session, table] = await Promise.all([
      ort.InferenceSession.create(`${folder}/model.onnx`, { executionProviders: ["wasm"], externalData }),
      fetch(`${folder}/class_labels_indices.csv`).then((answer) => answer.text()),
    ]);
    const rows = table.trim().split("\n").slice(1);
    const labels = rows.map((row) => row.match(/^\d+,"?(.*?)"?,"(.*)"$/)).map(([, mid, name]) => ({ mid, name: name.replaceAll('""', '"') }));
    return new Tagger(session, labels);
  }

  /** Every label with its score, best first, of samples at 16 kHz in [-1, 1]: some ten seconds at most. */
  async tag(samples) {
    const clip = longEnough(samples);
    const { scores } = await this.session.run(
      { waveforms: new ort.Tensor("float32", clip, [1, clip.length]), lengths: new ort.Tensor("int64", [BigInt(clip.length)], [1]) },
      ["scores"],
    );
    return this.labels.map((label, i) => ({ ...label, score: scores.data[i] })).sort((a, b) => b.score - a.score);
  }
}

/** The mean of a sound file's channels at 16 kHz, of any form that the browser reads. */
export async function waveform(file) {
  const sound = await new OfflineAudioContext(1, 1, RATE).decodeAudioData(await file.arrayBuffer());
  const mean = new Float32Array(sound.length);
  for (let channel = 0; channel < sound.numberOfChannels; channel++)
    sound.getChannelData(channel).forEach((sample, i) => (mean[i] += sample / sound.numberOfChannels));
  return mean;
}

/** A clip shorter than MIN_SAMPLES repeated until it is not. */
function longEnough(samples) {
  if (samples.length >= MIN_SAMPLES) return samples;
  const clip = new Float32Array(Math.ceil(MIN_SAMPLES / samples.length) * samples.length);
  for (let i = 0; i < clip.length; i += samples.length) clip.set(samples, i);
  return clip;
}
