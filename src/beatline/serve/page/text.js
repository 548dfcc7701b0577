// Times and numbers as people read them.

/** Seconds as `m:ss`, or `h:mm:ss` from an hour on, with so many decimals. */
export function clock(seconds, decimals = 1) {
  const unit = 10 ** decimals;
  const ticks = Math.max(0, Math.floor(seconds * unit + 1e-6));
  const rest = ticks % (60 * unit);
  const minutes = Math.floor(ticks / (60 * unit));
  const tail = (rest / unit).toFixed(decimals).padStart(decimals ? 3 + decimals : 2, "0");
  const hours = Math.floor(minutes / 60);
  return hours ? `${hours}:${String(minutes % 60).padStart(2, "0")}:${tail}` : `${minutes}:${tail}`;
}

/** A score with two decimals. */
export function score(value) {
  return value.toFixed(2);
}

/** An element with properties and children, which are elements or plain text. */
export function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key in made) made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}
