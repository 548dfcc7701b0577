// The server's answer as what is shown of it: the best labels, the rows of the timeline, the table.

import { clock, element, score } from "./text.js";

const BEST = 5;
const EVENTS_LISTED = 20; // of a label, in the table

/** One line for those who listen. */
export function spoken(name, { tags }) {
  return `${name}: ${tags.slice(0, BEST).map((tag) => `${tag.name} ${score(tag.score)}`).join(", ")}`;
}

/** List items with the best labels of the whole recording. */
export function best({ tags }) {
  return tags.slice(0, BEST).map((tag) => {
    const fill = element("span");
    fill.style.width = `${100 * tag.score}%`;
    const bar = element("span", { className: "bar", "aria-hidden": "true" }, fill);
    return element("li", {}, element("span", { className: "name", title: tag.name }, tag.name), element("span", { className: "score" }, score(tag.score)), bar);
  });
}

/** The timeline's labels by highest score, each with its events and the stretch where it is strongest: its best event, or its best window. */
export function makeRows({ timeline: { starts, ends, labels }, events, tags }) {
  const whole = new Map(tags.map((tag) => [tag.mid, tag.score]));
  const heard = Map.groupBy(events, (event) => event.mid);
  const rows = labels.map(({ mid, name, scores }) => {
    const peak = scores.reduce((a, b) => Math.max(a, b), 0);
    const window = scores.indexOf(peak);
    const own = heard.get(mid) ?? [];
    const strongest = own.reduce((one, event) => (one && one.score >= event.score ? one : event), null);
    return { mid, name, scores, peak, whole: whole.get(mid), events: own, start: strongest?.onset ?? starts[window], end: strongest?.offset ?? ends[window] };
  });
  return rows.sort((a, b) => b.peak - a.peak);
}

/** The rows that have all the words in their name and are of the kind, a set of mids, if one is given. */
export function filterRows(rows, words, kind) {
  const wanted = words.toLowerCase().split(/\s+/).filter(Boolean);
  return rows.filter((row) => (!kind || kind.has(row.mid)) && wanted.every((word) => row.name.toLowerCase().includes(word)));
}

/** A button for each row; `hear(row, button)` is called by it. The first alone is a Tab stop, arrow keys lead to the others. */
export function rowButtons(rows, hear) {
  return rows.map((row, place) => {
    const button = element("button", { type: "button", tabIndex: place ? -1 : 0, title: `${row.name}: play from ${clock(row.start)}` });
    button.setAttribute("aria-label", `${row.name}, ${score(row.peak)}, play from ${clock(row.start)}`);
    button.append(element("span", { className: "name" }, row.name), element("span", { className: "score" }, score(row.peak)));
    button.addEventListener("click", () => hear(row, button));
    return button;
  });
}

/** Table rows: label, score over the whole recording, highest score and its place, events. */
export function tableRows(rows) {
  return rows.map((row) => {
    const times = row.events.slice(0, EVENTS_LISTED).map((event) => `${clock(event.onset)} to ${clock(event.offset)}`);
    if (row.events.length > times.length) times.push(`${row.events.length - times.length} more`);
    const numbers = [row.whole === undefined ? "" : score(row.whole), score(row.peak)].map((text) => element("td", { className: "n" }, text));
    return element("tr", {}, element("th", { scope: "row" }, row.name), ...numbers, element("td", {}, clock(row.start)), element("td", {}, times.join(", ") || "none"));
  });
}
