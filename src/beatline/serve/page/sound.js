// Sound in the browser: a file as samples, the microphone as a file.

export const RATE = 16_000; // Hz, what the model hears
const LONGEST_DECODED = 1800; // seconds; memory is bounded by it, some 20 MB a minute while decoding
const LARGEST_DECODED = 2 ** 28; // bytes; the length of a file that the browser cannot play is not known
const LONGEST_RECORDING = 600; // seconds

/** Mono samples at `RATE`, or null where the browser cannot decode the file. `seconds` is its length where known, or NaN. */
export async function decode(file, seconds) {
  if (seconds > LONGEST_DECODED || file.size > LARGEST_DECODED) return null;
  try {
    const sound = await new OfflineAudioContext(1, 1, RATE).decodeAudioData(await file.arrayBuffer());
    const mono = new Float32Array(sound.length);
    for (let channel = 0; channel < sound.numberOfChannels; channel++) {
      const samples = sound.getChannelData(channel);
      for (let i = 0; i < mono.length; i++) mono[i] += samples[i] / sound.numberOfChannels;
    }
    return mono;
  } catch {
    return null;
  }
}

/** Mono samples as a WAV file of 16 bits, which every server reads. */
export function wav(samples, name) {
  const view = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const text = (place, word) => [...word].forEach((letter, i) => view.setUint8(place + i, letter.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, 36 + 2 * samples.length, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true); // PCM
  view.setUint16(22, 1, true); // channel
  view.setUint32(24, RATE, true);
  view.setUint32(28, 2 * RATE, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  text(36, "data");
  view.setUint32(40, 2 * samples.length, true);
  samples.forEach((value, i) => view.setInt16(44 + 2 * i, Math.max(-1, Math.min(1, value)) * 32767, true));
  return new File([view], name, { type: "audio/wav" });
}

/** Why the microphone gives nothing, as one line. */
function microphoneProblem(error) {
  if (!navigator.mediaDevices) return "The microphone cannot be used: browsers give it only to pages over https or on localhost; open this page so, or choose a file.";
  if (error.name === "NotAllowedError") return "The microphone was refused: allow it for this page in the browser's settings, or choose a file.";
  if (error.name === "NotFoundError") return "No microphone was found: connect one, or choose a file.";
  return `The microphone cannot be used: ${error.message || error.name}; close programs that use it, or choose a file.`;
}

/** The microphone, open until `stop`. `onLevel(seconds, loudness)` is called some ten times a second, `onEnd(File)` once. */
export class Recorder {
  /** Raises an Error with a line for the reader. */
  static async start(name, onLevel, onEnd) {
    try {
      const stream = await navigator.mediaDevices.getUserMedia({ audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false } });
      return new Recorder(stream, name, onLevel, onEnd);
    } catch (error) {
      throw new Error(microphoneProblem(error));
    }
  }

  constructor(stream, name, onLevel, onEnd) {
    const context = new AudioContext();
    const meter = new AnalyserNode(context, { fftSize: 2048 });
    context.createMediaStreamSource(stream).connect(meter);
    const heard = new Float32Array(meter.fftSize);
    const chunks = [];
    const begin = performance.now();
    this.recorder = new MediaRecorder(stream);
    const timer = setInterval(() => {
      const seconds = (performance.now() - begin) / 1000;
      meter.getFloatTimeDomainData(heard);
      onLevel(seconds, Math.max(...heard.map(Math.abs)));
      if (seconds > LONGEST_RECORDING) this.stop();
    }, 100);
    this.recorder.ondataavailable = (event) => chunks.push(event.data);
    this.recorder.onstop = async () => {
      clearInterval(timer);
      stream.getTracks().forEach((track) => track.stop());
      context.close();
      const samples = await decode(new Blob(chunks), NaN);
      onEnd(samples && wav(samples, name)); // as WAV: a browser's own container lacks its length, and not every server reads it
    };
    this.recorder.start(1000);
  }

  stop() {
    if (this.recorder.state !== "inactive") this.recorder.stop();
  }
}
