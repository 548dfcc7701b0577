// The picture of a recording over time: a ruler, the spectrogram, a lane for each label, the playhead; zoomed, scrolled and pointed at.
// The browser scrolls: a spacer is as wide as the whole recording, and what is drawn sticks to the window over it.

import { height } from "./spectrogram.js";
import { clock } from "./text.js";

const FINEST = 400; // pixels a second
const WIDEST = 8e6; // pixels that browsers lay out
const LANE = 22; // rows of a lane's picture
const HEAT = 16; // of them for the scores
const MARK = 3; // and at the bottom for events
const RULER = [0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800];
const FREQUENCIES = [500, 1000, 2000, 4000];
const WHEEL_STEP = 60; // of a wheel's turning, for one step of zoom

export class Timeline {
  /** `part(id)` gives the page's elements; `on.seek(seconds)` and `on.point(seconds or null, lane)` are called. */
  constructor(part, on) {
    Object.assign(this, { on, level: 0, seconds: 0, time: 0, spectrogram: null, rows: [], edges: [], planned: false, from: 0 });
    for (const id of ["scroller", "spacer", "view", "ruler", "track", "spectrogram", "lanes", "playhead", "scale"]) this[`${id}Part`] = part(id);
    this.readColours();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => (this.readColours(), this.plan()));
    new ResizeObserver(() => this.resize()).observe(this.scrollerPart);
    this.scrollerPart.addEventListener("scroll", () => this.plan());
    this.scrollerPart.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    this.viewPart.addEventListener("click", (event) => this.on.seek(this.timeAt(event)));
    this.viewPart.addEventListener("pointermove", (event) => this.on.point(this.timeAt(event), [...this.lanesPart.children].indexOf(event.target)));
    this.viewPart.addEventListener("pointerleave", () => this.on.point(null, -1));
    for (const frequency of FREQUENCIES) {
      const tick = document.createElement("span");
      tick.textContent = frequency < 1000 ? `${frequency} Hz` : `${frequency / 1000} kHz`;
      tick.style.bottom = `${100 * height(frequency)}%`;
      this.scalePart.append(tick);
    }
    this.wheeled = 0;
  }

  /** Turns to another recording of so many seconds. */
  open(seconds) {
    Object.assign(this, { level: 0, time: 0, from: 0, spectrogram: null, rows: [], edges: [] });
    this.length(seconds);
  }

  /** Says how long the recording is, once it is known. */
  length(seconds) {
    this.seconds = seconds;
    this.resize();
  }

  /** Shows these labels, each `{scores, events}`, over windows from `starts` to `ends`. */
  show(rows, starts, ends) {
    this.rows = rows;
    // windows overlap: a moment shows the one whose middle is nearest
    const middles = starts.map((start, i) => (start + ends[i]) / 2);
    this.edges = middles.map((middle, i) => (i ? (middles[i - 1] + middle) / 2 : 0)).concat(this.seconds);
    while (this.lanesPart.children.length > rows.length) this.lanesPart.lastChild.remove();
    while (this.lanesPart.children.length < rows.length) {
      const lane = document.createElement("canvas");
      lane.className = "lane";
      this.lanesPart.append(lane);
    }
    this.plan();
  }

  get scale() {
    return this.seconds ? Math.min((this.width / this.seconds) * 2 ** this.level, WIDEST / this.seconds) : 1;
  }

  get width() {
    return Math.max(1, this.scrollerPart.clientWidth);
  }

  get begin() {
    return this.scrollerPart.scrollLeft / this.scale;
  }

  get finest() {
    const fit = this.width / (this.seconds || 1);
    return Math.max(0, Math.min(Math.max(3, Math.ceil(Math.log2(FINEST / fit))), Math.floor(Math.log2(WIDEST / this.width))));
  }

  timeAt(event) {
    const x = event.clientX - this.viewPart.getBoundingClientRect().left;
    return Math.max(0, Math.min(this.seconds, this.begin + x / this.scale));
  }

  /** The number of the window that a moment shows. */
  cellAt(time) {
    let cell = 0;
    while (cell < this.edges.length - 2 && this.edges[cell + 1] <= time) cell++;
    return cell;
  }

  /** Zooms by steps of two, so that the moment `time` stays where it is; the playhead if it is in sight, or else the middle. */
  zoom(steps, time = null) {
    const half = this.width / this.scale / 2;
    const seen = this.time >= this.begin && this.time <= this.begin + 2 * half;
    const kept = time ?? (seen ? this.time : this.begin + half);
    const x = (kept - this.begin) * this.scale;
    this.level = Math.max(0, Math.min(this.finest, this.level + steps));
    this.layOut();
    this.scrollerPart.scrollLeft = kept * this.scale - x;
    this.from = this.begin;
    this.plan();
  }

  wheel(event) {
    if (!event.ctrlKey && !event.metaKey) return; // the page scrolls
    event.preventDefault();
    this.wheeled += event.deltaMode ? event.deltaY * 20 : event.deltaY;
    const steps = Math.trunc(this.wheeled / WHEEL_STEP);
    this.wheeled -= steps * WHEEL_STEP;
    if (steps) this.zoom(-steps, this.timeAt(event));
  }

  /** Moves the playhead, and the window after it where it leaves it. */
  moveTo(time, follow = true) {
    this.time = time;
    const x = time * this.scale - this.scrollerPart.scrollLeft;
    if (follow && (x < 0 || x > this.width)) this.scrollerPart.scrollLeft = time * this.scale - this.width / 10;
    this.placePlayhead();
  }

  placePlayhead() {
    const x = this.time * this.scale - this.scrollerPart.scrollLeft;
    this.playheadPart.style.transform = `translateX(${Math.min(x, this.width - 1)}px)`;
    this.playheadPart.hidden = !this.seconds || x < -1 || x > this.width + 1;
  }

  resize() {
    const begin = this.from; // as it was drawn in the former width
    this.level = Math.min(this.level, this.finest);
    this.layOut();
    this.scrollerPart.scrollLeft = begin * this.scale;
    this.plan();
  }

  layOut() {
    this.viewPart.style.width = `${this.width}px`;
    this.spacerPart.style.width = this.level ? `${Math.round(this.seconds * this.scale)}px` : "100%";
  }

  /** Draws before the next frame. */
  plan() {
    if (this.planned) return;
    this.planned = true;
    requestAnimationFrame(() => {
      this.planned = false;
      this.draw();
    });
  }

  draw() {
    this.from = this.begin;
    this.placePlayhead();
    const ratio = Math.min(devicePixelRatio, 2);
    const picture = this.spectrogramPart;
    fit(picture, picture.clientWidth * ratio, picture.clientHeight * ratio);
    picture.getContext("2d").clearRect(0, 0, picture.width, picture.height);
    this.drawRuler(ratio);
    if (this.spectrogram) this.spectrogram.draw(picture, this.begin, this.scale, this.ramp, ratio);
    this.rows.forEach((row, i) => this.drawLane(this.lanesPart.children[i], row, ratio));
  }

  drawRuler(ratio) {
    const canvas = this.rulerPart;
    fit(canvas, canvas.clientWidth * ratio, canvas.clientHeight * ratio);
    const context = canvas.getContext("2d");
    const style = getComputedStyle(canvas);
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.scale(ratio, ratio);
    context.font = `${style.fontSize} ${style.fontFamily}`;
    context.fillStyle = style.color;
    const step = RULER.find((seconds) => seconds * this.scale >= 72) ?? RULER.at(-1);
    const decimals = step < 0.1 ? 2 : step < 1 ? 1 : 0;
    const end = Math.min(this.seconds, this.begin + this.width / this.scale);
    for (let tick = Math.ceil(this.begin / step - 1e-9); tick * step <= end + 1e-9; tick++) {
      const x = (tick * step - this.begin) * this.scale, text = clock(tick * step, decimals);
      context.fillRect(Math.min(Math.round(x), this.width - 1), canvas.clientHeight - 5, 1, 5);
      const room = this.width - context.measureText(text).width;
      if (x + 4 <= room) context.fillText(text, x + 4, canvas.clientHeight - 5);
    }
    context.setTransform(1, 0, 0, 1, 0, 0);
  }

  /** A lane: at each pixel the highest score of the windows in it, and below a line where there are events. */
  drawLane(canvas, row, ratio) {
    const width = Math.max(1, Math.round(this.width * ratio));
    fit(canvas, width, LANE);
    const image = new ImageData(width, LANE);
    const pixels = new Uint32Array(image.data.buffer);
    const { edges, begin } = this;
    const step = 1 / (this.scale * ratio);
    let cell = 0;
    for (let x = 0; x < width; x++) {
      const from = begin + x * step;
      while (cell < row.scores.length - 1 && edges[cell + 1] <= from) cell++;
      let best = row.scores[cell];
      for (let next = cell + 1; next < row.scores.length && edges[next] < from + step; next++) best = Math.max(best, row.scores[next]);
      if (from < this.seconds) pixels[x] = this.heat[shade(best)];
    }
    for (let y = 1; y < HEAT; y++) pixels.copyWithin(y * width, 0, width);
    for (const event of row.events) {
      const from = Math.max(0, Math.floor((event.onset - begin) / step)), to = Math.min(width, Math.ceil((event.offset - begin) / step));
      if (to > from) for (let y = LANE - MARK; y < LANE; y++) pixels.fill(this.mark, y * width + from, y * width + to);
    }
    canvas.getContext("2d").putImageData(image, 0, 0);
  }

  readColours() {
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    this.ramp = gradient(["--s0", "--s1", "--s2", "--s3"].map(colour));
    this.heat = gradient(["--lane", "--accent"].map(colour));
    this.mark = gradient([colour("--mark"), colour("--mark")])[0];
  }
}

/** A score's place in the colours, bent a little so that low scores are seen too. */
function shade(score) {
  return Math.round(255 * Math.max(0, Math.min(1, score)) ** 0.7);
}

/** Gives a canvas its size, which clears it, only where that changes. */
function fit(canvas, width, height) {
  if (canvas.width !== Math.round(width)) canvas.width = Math.round(width);
  if (canvas.height !== Math.round(height)) canvas.height = Math.round(height);
}

/** 256 colours from the first to the last, as a canvas's pixels hold them. */
function gradient(colours) {
  const context = new OffscreenCanvas(256, 1).getContext("2d");
  const fill = context.createLinearGradient(0, 0, 256, 0);
  colours.forEach((colour, i) => fill.addColorStop(i / (colours.length - 1), colour));
  context.fillStyle = fill;
  context.fillRect(0, 0, 256, 1);
  return new Uint32Array(context.getImageData(0, 0, 256, 1).data.buffer);
}
