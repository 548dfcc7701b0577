// Samples -> a picture of their frequencies, in tiles that are computed bit by bit when they are first looked at.

import { RATE } from "./sound.js";

const SIZE = 512; // samples of a transform, 32 ms
const BANDS = 96; // rows of the picture, evenly spaced in mel up to half the rate
const TILE = 256; // columns
const OVERVIEW = 1024; // columns of the whole recording, seen until the tiles are there
const TRANSFORMS = 4; // at most, averaged into one column
const RANGE = 70; // dB from black to white
const TILES_KEPT = 160;
const AT_ONCE = 8; // ms of work before the page may breathe

const mel = (hertz) => 1127 * Math.log1p(hertz / 700);
const hertz = (value) => 700 * Math.expm1(value / 1127);

/** Where a frequency lies in the picture: 0 at its lower edge, 1 at the upper. */
export function height(frequency) {
  return mel(frequency) / mel(RATE / 2);
}

/** An in-place transform of `SIZE` complex numbers: radix 2, decimation in time (Cooley and Tukey 1965). */
class Transform {
  constructor() {
    this.real = new Float32Array(SIZE);
    this.imaginary = new Float32Array(SIZE);
    this.window = Float32Array.from({ length: SIZE }, (_, i) => 0.5 - 0.5 * Math.cos((2 * Math.PI * i) / SIZE));
    this.cosine = Float32Array.from({ length: SIZE / 2 }, (_, i) => Math.cos((2 * Math.PI * i) / SIZE));
    this.sine = Float32Array.from({ length: SIZE / 2 }, (_, i) => -Math.sin((2 * Math.PI * i) / SIZE));
    const bits = Math.log2(SIZE);
    this.reversed = Uint16Array.from({ length: SIZE }, (_, i) => {
      let place = 0;
      for (let bit = 0; bit < bits; bit++) place |= ((i >> bit) & 1) << (bits - 1 - bit);
      return place;
    });
  }

  /** Adds the power of the samples around `centre` to `power`, `SIZE / 2` numbers. */
  add(samples, centre, power) {
    const { real, imaginary, cosine, sine } = this;
    const begin = Math.round(centre) - SIZE / 2;
    for (let i = 0; i < SIZE; i++) {
      real[this.reversed[i]] = (samples[begin + i] ?? 0) * this.window[i];
      imaginary[i] = 0;
    }
    for (let half = 1; half < SIZE; half *= 2) {
      const stride = SIZE / (2 * half);
      for (let group = 0; group < SIZE; group += 2 * half) {
        for (let k = 0; k < half; k++) {
          const a = group + k, b = a + half, c = cosine[k * stride], s = sine[k * stride];
          const x = real[b] * c - imaginary[b] * s, y = real[b] * s + imaginary[b] * c;
          real[b] = real[a] - x;
          imaginary[b] = imaginary[a] - y;
          real[a] += x;
          imaginary[a] += y;
        }
      }
    }
    for (let i = 0; i < SIZE / 2; i++) power[i] += real[i] * real[i] + imaginary[i] * imaginary[i];
  }
}

/** A recording's picture. `changed` is called when there is more of it to draw. */
export class Spectrogram {
  constructor(samples, changed) {
    Object.assign(this, { samples, changed, tiles: new Map(), wanted: [], busy: false });
    this.transform = new Transform();
    this.power = new Float32Array(SIZE / 2);
    this.edges = Float32Array.from({ length: BANDS + 1 }, (_, i) => (hertz((i / BANDS) * mel(RATE / 2)) / RATE) * SIZE);
    this.top = this.loudest();
    this.overview = new Strip(0, samples.length / OVERVIEW, OVERVIEW);
  }

  /** The loudest band in dB, from 200 places: what is drawn strongest. */
  loudest() {
    const column = new Float32Array(BANDS);
    let top = -100;
    for (let place = 0; place < 200; place++) {
      this.column(((place + 0.5) / 200) * this.samples.length, 1, column);
      for (const value of column) top = Math.max(top, value);
    }
    return top;
  }

  /** The column around sample `centre`, `width` samples wide, in dB. */
  column(centre, width, out) {
    const { power, edges } = this;
    const count = Math.max(1, Math.min(TRANSFORMS, Math.round(width / SIZE)));
    power.fill(0);
    for (let i = 0; i < count; i++) this.transform.add(this.samples, centre + ((i + 0.5) / count - 0.5) * width, power);
    for (let band = 0; band < BANDS; band++) {
      const low = edges[band], high = Math.max(edges[band + 1], low + 1); // low bands are narrower than what a transform tells apart
      let sum = 0;
      for (let i = Math.floor(low); i < high && i < SIZE / 2; i++) sum += power[i] * (Math.min(i + 1, high) - Math.max(i, low));
      out[band] = 10 * Math.log10(sum / (high - low) / count + 1e-10);
    }
  }

  /**
   * Draws the stretch from `begin` seconds at `scale` pixels a second on an empty canvas; what is not computed yet comes with a later `changed`.
   * `colours` are 256 RGBA values, `ratio` the canvas's pixels for one of the page's.
   */
  draw(canvas, begin, scale, colours, ratio) {
    const first = Math.floor((begin * scale) / TILE);
    const last = Math.floor(Math.min(begin * scale + canvas.width / ratio, (this.samples.length / RATE) * scale - 1e-6) / TILE);
    const strips = [this.overview];
    for (let number = first; number <= last; number++) {
      const key = `${scale}/${number}`;
      const tile = this.tiles.get(key) ?? new Strip(((number * TILE) / scale) * RATE, RATE / scale, TILE);
      this.tiles.delete(key);
      this.tiles.set(key, tile); // last in the map: used last
      strips.push(tile);
    }
    for (const key of this.tiles.keys()) {
      if (this.tiles.size <= TILES_KEPT) break;
      this.tiles.delete(key);
    }
    for (const strip of strips) strip.draw(canvas, begin, scale * ratio, colours);
    this.wanted = strips.filter((strip) => strip.done < strip.columns);
    if (!this.busy) this.work();
  }

  /** Computes what is wanted, a few milliseconds at a time. */
  async work() {
    this.busy = true;
    const column = new Float32Array(BANDS);
    while (this.wanted.length) {
      const [strip] = this.wanted;
      const until = performance.now() + AT_ONCE;
      while (strip.done < strip.columns && performance.now() < until) {
        this.column(strip.first + (strip.done + 0.5) * strip.step, strip.step, column);
        strip.put(column.map((value) => 255 * (1 + (value - this.top) / RANGE)));
      }
      if (strip.done === strip.columns) this.wanted.shift();
      this.changed();
      await new Promise((resolve) => setTimeout(resolve));
    }
    this.busy = false;
  }
}

/** Columns side by side: from sample `first` on, `step` samples each. */
class Strip {
  constructor(first, step, columns) {
    Object.assign(this, { first, step, columns, done: 0, picture: null, colours: null });
    this.levels = new Uint8ClampedArray(columns * BANDS);
  }

  /** Adds a column of levels from 0 to 255, the lowest band first. */
  put(column) {
    for (let band = 0; band < BANDS; band++) this.levels[(BANDS - 1 - band) * this.columns + this.done] = column[band];
    this.done++;
    this.picture = null;
  }

  draw(canvas, begin, scale, colours) {
    if (!this.done) return;
    if (!this.picture || this.colours !== colours) this.paint(colours);
    const seconds = this.step / RATE;
    canvas.getContext("2d").drawImage(this.picture, (this.first / RATE - begin) * scale, 0, this.columns * seconds * scale, canvas.height);
  }

  /** Makes the picture in these colours; what is not computed yet stays clear. */
  paint(colours) {
    this.picture = new OffscreenCanvas(this.columns, BANDS);
    this.colours = colours;
    const image = new ImageData(this.columns, BANDS);
    const pixels = new Uint32Array(image.data.buffer);
    for (let row = 0; row < pixels.length; row += this.columns) {
      for (let place = row; place < row + this.done; place++) pixels[place] = colours[this.levels[place]];
    }
    this.picture.getContext("2d").putImageData(image, 0, 0);
  }
}
