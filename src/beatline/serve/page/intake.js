// Recordings come in: chosen, dropped anywhere on the page, or from the microphone.

import { Recorder } from "./sound.js";
import { clock } from "./text.js";

/** `add(files)` takes what comes, `problem(text)` says what does not, `say(text)` what happens. */
export function intake(part, { add, problem, say }) {
  part("choose").addEventListener("click", () => part("files").click());
  part("files").addEventListener("change", () => {
    add([...part("files").files]);
    part("files").value = ""; // so that the same file can be chosen again
  });
  listenForDrops(add, problem);
  listenForRecord(part, add, problem, say);
}

function listenForDrops(add, problem) {
  let depth = 0; // how many elements the drag has entered and not left
  const dragging = (change) => document.body.classList.toggle("dragging", (depth = Math.max(0, depth + change)) > 0);
  addEventListener("dragenter", () => dragging(1));
  addEventListener("dragleave", () => dragging(-1));
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    dragging(-Infinity);
    const dropped = [...event.dataTransfer.items].filter((one) => one.kind === "file");
    const isFolder = (one) => one.webkitGetAsEntry?.()?.isDirectory;
    const folder = dropped.find(isFolder)?.getAsFile();
    add(dropped.filter((one) => !isFolder(one)).map((one) => one.getAsFile()));
    if (folder) problem(`${folder.name}: it is a folder; drop the files in it.`);
  });
}

function listenForRecord(part, add, problem, say) {
  let recorder = null, count = 0;

  function show(on) {
    part("record").classList.toggle("on", on);
    part("record-name").textContent = on ? "Stop" : "Record";
    part("level").hidden = !on;
    say(on ? "Recording" : "Recording ended");
  }

  function level(seconds, loudness) {
    part("record-time").textContent = clock(seconds, 0);
    part("loudness").value = Math.sqrt(loudness); // quiet sounds are seen too
  }

  function ended(file) {
    recorder = null;
    show(false);
    if (file) add([file]);
    else problem("The recording is empty: nothing came from the microphone; check that it works, then record again.");
  }

  part("record").addEventListener("click", async () => {
    if (recorder) return recorder.stop();
    problem("");
    part("record").disabled = true; // until the reader has answered the browser
    try {
      recorder = await Recorder.start(`recording-${count + 1}.wav`, level, ended);
      count++;
      show(true);
    } catch (error) {
      problem(error.message);
    }
    part("record").disabled = false;
    part("record").focus();
  });
}
