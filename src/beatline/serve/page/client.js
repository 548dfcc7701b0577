// What the page asks the server: its labels, and the tags of one file, as a stream.

const TRIES = 6; // of a request that a busy server turns away
const LONGEST_WAIT = 30; // seconds between two of them

const PASSING = ["server-busy", "server-stopping", "disk-full", "upload-timeout"]; // codes of what may succeed later

/** Why a file has no tags: what happened, its cause, what to do; `passing` where trying again may help. */
export class Refusal extends Error {
  constructor({ code, what, cause, remedy }, passing = PASSING.includes(code)) {
    super(`${what}: ${cause}; ${remedy}.`);
    this.passing = passing;
  }
}

/** Any error as a refusal; one that is none is a bug, here or there, and is told to the console. */
export function asRefusal(error, file) {
  if (error instanceof Refusal) return error;
  console.error(error);
  return new Refusal({ what: file.name, cause: "the server's answer cannot be understood", remedy: "load this page again, then try again" }, true);
}

/** The model's labels, as `GET v1/labels` gives them. */
export async function labels() {
  const response = await fetch("v1/labels").catch(() => null);
  if (!response) throw new Refusal({ what: "The labels cannot be read", cause: "the server does not answer", remedy: "check that it runs, then load this page again" }, true);
  if (!response.ok) throw await refusal(response);
  return response.json();
}

/**
 * The server's result for one file.
 * `listen.window({start, end, tags})` is called for each stretch of the recording as it is done, `listen.busy(seconds)` before each wait for a busy server.
 */
export async function tag(file, top, signal, listen) {
  const address = `v1/tag?timeline=true&events=true&top=${top}`;
  for (let attempt = 1; ; attempt++) {
    const body = new FormData();
    body.append("files", file, file.name);
    let response;
    try {
      response = await fetch(address, { method: "POST", body, signal, headers: { Accept: "application/x-ndjson" } });
    } catch (error) {
      throw signal.aborted ? error : await unreachable(file);
    }
    if (response.ok) return read(response, file, listen);
    const seconds = Number(response.headers.get("Retry-After"));
    if (![429, 503].includes(response.status) || !(seconds >= 0) || attempt === TRIES) throw await refusal(response);
    await response.body?.cancel();
    listen.busy(Math.max(1, Math.min(seconds, LONGEST_WAIT)));
    await pause(Math.max(1, Math.min(seconds, LONGEST_WAIT)), signal);
  }
}

async function read(response, file, listen) {
  const broken = new Refusal({ what: file.name, cause: "the server's answer broke off", remedy: "try again" }, true);
  let result = null;
  for await (const line of lines(response.body, broken)) {
    const message = JSON.parse(line);
    if (message.error) throw new Refusal(message.error);
    if (message.type === "window") listen.window(message);
    if (message.type === "result") result = message;
  }
  if (!result) throw broken;
  return result;
}

async function* lines(stream, broken) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read().catch((error) => {
      throw error.name === "AbortError" ? error : broken;
    });
    const parts = (held + (value ?? "")).split("\n");
    held = parts.pop();
    yield* parts.filter(Boolean);
    if (done) break;
  }
  if (held) yield held;
}

async function refusal(response) {
  const answer = await response.json().catch(() => ({}));
  return answer.error ? new Refusal(answer.error) : new Refusal({ what: `The server answered ${response.status}`, cause: "it gave no reason", remedy: "try again, or look at its log" }, true);
}

/** A request without any answer: a file that cannot be read, a server that is gone, or one that cut a large upload short. */
async function unreachable(file) {
  const readable = await file.slice(0, 1).arrayBuffer().then(() => true, () => false);
  if (!readable) return new Refusal({ what: file.name, cause: "the browser cannot read it any more", remedy: "choose the file again" }, true);
  const alive = await fetch("healthz").then((answer) => answer.ok, () => false);
  if (alive) return new Refusal({ what: file.name, cause: "the server closed the connection while the file was sent", remedy: "try a smaller file" }, true);
  return new Refusal({ what: file.name, cause: "the server does not answer", remedy: "check that it runs, then try again" }, true);
}

function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, 1000 * seconds);
    signal.addEventListener("abort", () => (clearTimeout(timer), reject(signal.reason)), { once: true });
  });
}
