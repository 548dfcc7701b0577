// The page: recordings come in, and their answers are shown over their sound. What is known of each stands in an item; one item is looked at.

import { best, filterRows, makeRows, rowButtons, spoken, tableRows } from "./answer.js";
import { Branches } from "./branches.js";
import * as client from "./client.js";
import * as exports from "./exports.js";
import { intake } from "./intake.js";
import { decode, RATE } from "./sound.js";
import { Spectrogram } from "./spectrogram.js";
import { clock, element, score } from "./text.js";
import { Timeline } from "./timeline.js";

const ROWS = 10; // shown at first
const MORE_ROWS = 20; // and then as many more each time
const ALL_LABELS_BYTES = 16 << 20; // of larger files the timeline has only the best labels, or the answer would be larger than they
const LABELS_OF_LARGE = 100;
const LEAP = 10; // seconds of a page key

const part = (id) => document.getElementById(id);
const audio = part("audio");
const still = matchMedia("(prefers-reduced-motion: reduce)");
const timeline = new Timeline(part, { seek, point });
const items = [];
let current = null;
let labelCount = 1;
let branches = null;
let rows = []; // of the current answer, by highest score
let shown = ROWS;
let asking = false;

// ---- what the server is asked

function add(files) {
  const fresh = files.map((file) => ({ file, url: URL.createObjectURL(file), seconds: 0, state: "waiting", heard: 0, telling: "", result: null, refusal: null, time: 0, playable: null }));
  if (!fresh.length) return;
  items.push(...fresh);
  document.body.classList.add("busy");
  problem("");
  look(fresh[0]);
  askAll();
}

/** Asks for one file after the other. */
async function askAll() {
  if (asking) return;
  asking = true;
  for (let item; (item = items.find((one) => one.state === "waiting")); ) await ask(item);
  asking = false;
}

async function ask(item) {
  const { file } = item;
  item.abort = new AbortController();
  update(item, { state: "working", heard: 0, telling: "Sending" });
  say(`Tagging ${file.name}`);
  try {
    const result = await client.tag(file, file.size > ALL_LABELS_BYTES ? LABELS_OF_LARGE : labelCount, item.abort.signal, {
      window: ({ end, tags }) => update(item, { heard: end, telling: [`${clock(end, 0)} heard`, tags?.[0]?.name].filter(Boolean).join(", last ") }),
      busy: (seconds) => update(item, { telling: `The server is busy; next try in ${seconds} s` }),
    });
    update(item, { state: "done", result, seconds: result.seconds });
    say(spoken(file.name, result));
  } catch (error) {
    if (item.abort.signal.aborted) update(item, { state: "cancelled", refusal: { message: `${file.name}: cancelled.`, passing: true } });
    else update(item, { state: "refused", refusal: client.asRefusal(error, file) });
    say(item.refusal.message);
  }
}

function update(item, changes) {
  Object.assign(item, changes);
  listItems();
  if (item !== current) return;
  if (changes.result) showAnswer();
  else showState();
}

// ---- the items, and the one that is looked at

function listItems() {
  part("items").hidden = items.length < 2;
  const list = part("item-list");
  items.forEach((item, place) => {
    let button = list.children[place]?.firstChild;
    if (!button) {
      button = element("button", { type: "button", title: item.file.name }, element("span", { className: "name" }, item.file.name), element("span", { className: "state" }));
      button.addEventListener("click", () => look(item));
      list.append(element("li", {}, button));
    }
    button.className = item.state;
    button.lastChild.textContent = brief(item);
    button.setAttribute("aria-current", item === current);
  });
}

/** An item's state in a few words. */
function brief({ state, seconds, heard, result }) {
  if (state === "done") return [clock(seconds, 0), result.tags[0]?.name].filter(Boolean).join(", ");
  if (state === "working" && heard && seconds) return `${Math.min(99, Math.floor((100 * heard) / seconds))} %`;
  return state;
}

/** Turns to an item: its sound, its picture, its answer. */
async function look(item) {
  if (item === current) return;
  if (current) current.time = position();
  audio.pause();
  current = item;
  audio.src = item.url;
  audio.currentTime = item.time;
  timeline.open(item.seconds);
  timeline.moveTo(item.time);
  part("find").value = "";
  part("branch").value = "";
  part("title").textContent = item.file.name;
  part("result").hidden = false;
  noPicture("");
  listItems();
  showAnswer();
  await learnLength(item);
  const samples = await decode(item.file, item.seconds);
  if (item !== current) return;
  if (samples?.length) {
    setLength(item, item.seconds || samples.length / RATE);
    timeline.spectrogram = new Spectrogram(samples, () => timeline.plan());
  } else {
    noPicture(item.playable ? "No spectrogram: the recording is too long for the browser, or of a kind it cannot read." : "This browser cannot read the file: no spectrogram and no sound, the timeline alone.");
  }
}

/** Waits until the browser knows whether it can play the recording, and how long it is. */
async function learnLength(item) {
  if (item.playable !== null) return;
  const probe = new Audio(); // of its own: the reader may turn to another item meanwhile
  probe.preload = "metadata";
  item.playable = await new Promise((resolve) => {
    probe.onloadedmetadata = () => resolve(true);
    probe.onerror = () => resolve(false);
    probe.src = item.url;
  });
  if (item !== current) return;
  audio.currentTime = item.time; // where the reader went before
  setLength(item, item.seconds || (Number.isFinite(probe.duration) ? probe.duration : 0));
}

function setLength(item, seconds) {
  item.seconds = seconds;
  timeline.length(seconds);
  showState();
  showTime();
}

function noPicture(text) {
  part("no-picture").textContent = text;
  part("no-picture").hidden = !text;
}

function showState() {
  const { state, result, refusal, heard, seconds, telling, playable } = current, focused = document.activeElement;
  part("about").textContent = seconds ? clock(seconds, seconds < 1 ? 2 : 1) : "";
  part("working").hidden = state !== "working" && state !== "waiting";
  part("cancel").hidden = state !== "working";
  part("progress-text").textContent = state === "waiting" ? "Waiting for other files" : telling;
  if (heard && seconds) part("progress").value = Math.min(1, heard / seconds);
  else part("progress").removeAttribute("value");
  part("refusal").hidden = !refusal;
  part("refusal-text").textContent = refusal?.message ?? "";
  part("again").hidden = !refusal?.passing;
  part("player").hidden = !result && !playable;
  part("play").disabled = !playable;
  for (const id of ["overall", "filters", "head", "legend", "answers"]) part(id).hidden = !result;
  if (!focused.checkVisibility()) part(refusal?.passing ? "again" : "title").focus(); // what had it is gone: who works with keys goes on from here
}

// ---- the answer

function showAnswer() {
  const { result } = current;
  shown = ROWS;
  rows = result ? makeRows(result) : [];
  part("best").replaceChildren(...(result ? best(result) : []));
  part("note").textContent = result?.note ? `Note: ${result.note}.` : "";
  part("note").hidden = !result?.note;
  part("save-audacity").disabled = !result?.events.length;
  part("save-audacity").title = result?.events.length ? "" : "No event was found";
  showState();
  if (result) timeline.length(result.seconds);
  showRows();
  showTime();
}

function filtered() {
  const kind = part("branch").value;
  return filterRows(rows, part("find").value, kind && branches.members(kind));
}

function showRows() {
  const all = filtered(), some = all.slice(0, shown);
  part("labels").replaceChildren(...rowButtons(some, hear));
  timeline.show(some, current.result?.timeline.starts ?? [], current.result?.timeline.ends ?? []);
  part("count").textContent = all.length ? `${some.length} of ${all.length} labels` : "No label matches";
  part("more").hidden = some.length === all.length;
  part("more").textContent = `Show ${Math.min(MORE_ROWS, all.length - some.length)} more`;
  showTable();
}

function showTable() {
  if (part("as-table").open) part("table").replaceChildren(...tableRows(filtered()));
}

for (const id of ["find", "branch"]) {
  part(id).addEventListener("input", () => {
    shown = ROWS;
    showRows();
  });
}
part("more").addEventListener("click", () => {
  const first = shown;
  shown += MORE_ROWS;
  showRows();
  rove(part("labels").children[first]);
});
part("as-table").addEventListener("toggle", showTable);

for (const [form, type, suffix] of [["json", "application/json", ".json"], ["csv", "text/csv", ".csv"], ["audacity", "text/plain", ".txt"]]) {
  part(`save-${form}`).addEventListener("click", () => exports.save(current.file.name.replace(/\.[^.]*$/, "") + suffix, type, exports[form](current.result)));
}

// ---- time: play, seek, point

function position() {
  return current.playable ? audio.currentTime : current.time;
}

function seek(seconds) {
  current.time = Math.max(0, Math.min(seconds, current.seconds));
  if (current.playable) audio.currentTime = current.time;
  timeline.moveTo(current.time);
  showTime();
}

function toggle() {
  if (!current.playable) return;
  if (!audio.paused) audio.pause();
  else play();
}

function play() {
  audio.play().catch((error) => error.name !== "AbortError" && problem(`${current.file.name}: the browser does not play it: ${error.message}`));
}

/** Plays a label from where it is strongest. */
function hear(row, button) {
  for (const other of part("labels").children) other.setAttribute("aria-current", other === button);
  rove(button);
  seek(row.start);
  if (current.playable) play();
  else say(`${row.name} is strongest from ${clock(row.start)} to ${clock(row.end)}`);
}

function showTime() {
  const time = position(), { seconds } = current, cell = timeline.cellAt(time);
  const loudest = rows.reduce((one, row) => (one && one.scores[cell] >= row.scores[cell] ? one : row), null);
  part("now").textContent = clock(time);
  part("whole").textContent = clock(seconds);
  const track = part("track");
  track.setAttribute("aria-valuemax", seconds.toFixed(1));
  track.setAttribute("aria-valuenow", time.toFixed(1));
  track.setAttribute("aria-valuetext", `${clock(time)} of ${clock(seconds)}${loudest ? `, ${loudest.name} ${score(loudest.scores[cell])}` : ""}`);
}

function point(time, lane) {
  const row = timeline.rows[lane];
  part("readout").textContent = time === null ? "" : row ? `${clock(time, 2)}  ${row.name} ${score(row.scores[timeline.cellAt(time)])}` : clock(time, 2);
}

function showPlaying() {
  document.body.classList.toggle("playing", !audio.paused);
  part("play-name").textContent = audio.paused ? "Play" : "Pause";
  if (!still.matches) follow();
}

/** Moves the playhead with each frame; without it, four times a second. */
function follow() {
  if (audio.paused) return;
  timeline.moveTo(audio.currentTime);
  requestAnimationFrame(follow);
}

for (const name of ["play", "pause", "ended"]) audio.addEventListener(name, showPlaying);
audio.addEventListener("timeupdate", () => {
  if (!current?.playable) return;
  timeline.moveTo(audio.currentTime, !audio.paused);
  showTime();
});
part("play").addEventListener("click", toggle);
part("zoom-in").addEventListener("click", () => timeline.zoom(1));
part("zoom-out").addEventListener("click", () => timeline.zoom(-1));
part("zoom-fit").addEventListener("click", () => timeline.zoom(-Infinity));
part("cancel").addEventListener("click", () => current.abort.abort());
part("again").addEventListener("click", () => {
  update(current, { state: "waiting", refusal: null });
  askAll();
});

// ---- keys in the timeline

/** Puts the labels' one Tab stop on this one, and the focus. */
function rove(button) {
  if (!button) return;
  for (const other of part("labels").children) other.tabIndex = other === button ? 0 : -1;
  button.focus();
}

part("timeline").addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const labels = [...part("labels").children], place = labels.indexOf(document.activeElement);
  const step = Math.max(0.1, timeline.width / timeline.scale / 50); // what can be seen, but no less than can be heard
  const keys = {
    ArrowLeft: () => seek(position() - step),
    ArrowRight: () => seek(position() + step),
    PageUp: () => seek(position() - LEAP),
    PageDown: () => seek(position() + LEAP),
    "+": () => timeline.zoom(1),
    "=": () => timeline.zoom(1),
    "-": () => timeline.zoom(-1),
    0: () => timeline.zoom(-Infinity),
    ...(place < 0
      ? { ArrowDown: () => seek(position() - step), ArrowUp: () => seek(position() + step), Home: () => seek(0), End: () => seek(current.seconds), " ": toggle }
      : { ArrowDown: () => rove(labels[place + 1]), ArrowUp: () => rove(labels[place - 1]), Home: () => rove(labels[0]), End: () => rove(labels.at(-1)) }),
  };
  if (!keys[event.key]) return;
  event.preventDefault();
  keys[event.key]();
});

// ---- words, and the begin

function say(text) {
  part("status").textContent = text;
}

function problem(text) {
  part("problem").textContent = text;
  part("problem").hidden = !text;
}

async function begin() {
  intake(part, { add, problem, say });
  try {
    const { labels, nodes } = await client.labels();
    labelCount = labels.length;
    branches = new Branches(nodes ?? labels, new Set(labels.map((label) => label.mid)));
  } catch (error) {
    return problem(error.message);
  }
  const choices = branches.choices();
  part("branch-label").hidden = !choices.length;
  part("branch").append(...choices.map(({ mid, name, depth, count }) => element("option", { value: mid }, `${"\u2003".repeat(depth)}${name} (${count})`)));
  part("model").textContent = `What is heard in a recording, and when: ${labelCount} kinds of sound.`;
}

begin();
