// The answer as files, made here from what the server said.

const cell = (value) => (/[",\r\n]/.test(value) ? `"${String(value).replaceAll('"', '""')}"` : String(value));

/** The server's result as it came. */
export function json(result) {
  return JSON.stringify(result, null, 2) + "\n";
}

/** A row for each label of each window, in the columns of `beatline tag --format csv`: file, onset, offset, mid, name, score. */
export function csv(result) {
  const { starts, ends, labels } = result.timeline;
  const rows = [["file", "onset", "offset", "mid", "name", "score"]];
  starts.forEach((start, i) => {
    for (const label of labels) rows.push([result.file, start.toFixed(3), ends[i].toFixed(3), label.mid, label.name, label.scores[i].toFixed(6)]);
  });
  return rows.map((row) => row.map(cell).join(",") + "\n").join("");
}

/** The events as Audacity's label track: onset, offset, name. */
export function audacity(result) {
  const events = [...result.events].sort((a, b) => a.onset - b.onset || a.offset - b.offset);
  return events.map(({ onset, offset, name }) => `${onset.toFixed(6)}\t${offset.toFixed(6)}\t${name.replace(/\s+/g, " ")}\n`).join("");
}

/** Gives the reader a file. */
export function save(name, type, text) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000); // the browser reads it after this call
}
