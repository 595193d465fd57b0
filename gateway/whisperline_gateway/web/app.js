// The page: one session at a time, from the microphone or a file, and its text.

import { Level } from "./level.js";
import { startFile, startMicrophone } from "./sources.js";
import { Stream } from "./stream.js";
import { Transcript } from "./transcript.js";

const STATES = {
  connecting: () => "Connecting…",
  live: () => "Listening",
  reconnecting: ({ delayS, opened }) =>
    `${opened ? "Connection lost; your audio is kept. Resuming" : "No answer. Trying again"} in ${delayS.toFixed(1)} s`,
  closing: () => "Finishing…",
};

const QUIET = {
  still: "No sound comes from the microphone. It may be muted, here or by a switch of its own.",
  quiet: "The microphone is very quiet. If you are speaking, come closer, or raise its level in the settings of your system.",
};

const page = Object.fromEntries(
  ["state", "microphone", "choose", "file", "language", "fast", "quiet", "error", "copy"].map((id) => [id, document.getElementById(id)]),
);
const transcript = new Transcript(document.getElementById("finals"), document.getElementById("partial"));
let session = null; // { stop, understood } while audio is recorded or text is still to come

function show(state, text) {
  page.state.dataset.state = state;
  page.state.textContent = text;
}

function complain(text) {
  page.error.textContent = text;
  page.error.hidden = !text;
}

function warnOfQuiet(problem) {
  // A microphone whose speech became text is loud enough: then it is quiet because nobody speaks.
  const text = problem === "quiet" && session?.understood ? "" : (QUIET[problem] ?? "");
  if (page.quiet.textContent !== text) page.quiet.textContent = text;
  page.quiet.hidden = !text;
}

function setBusy(kind) {
  page.microphone.textContent = kind ? "Stop" : "Start microphone";
  page.microphone.setAttribute("aria-pressed", String(Boolean(kind)));
  page.microphone.disabled = kind === "closing";
  page.choose.disabled = page.language.disabled = page.fast.disabled = Boolean(kind);
}

// `start(push, stream)` starts a source and returns { stop, ended }.
async function run(priority, start) {
  if (session) {
    complain("A session is running. Stop it before you start another.");
    return;
  }
  const mine = (session = {});
  complain("");
  setBusy("starting");
  const stream = { current: null };
  const early = []; // frames that came before there was a stream
  try {
    show("connecting", "Opening the audio…");
    const source = await start((frame) => (stream.current ? stream.current.push(frame) : early.push(frame)), stream);
    mine.stop = source.stop;
    transcript.clear();
    setBusy("live");
    stream.current = new Stream({ language: page.language.value, priority }, hear);
    early.splice(0).forEach((frame) => stream.current.push(frame));
    await source.ended;
    if (session === mine) setBusy("closing");
    stream.current.finish();
  } catch (error) {
    over("failed", "Could not start", error.message);
  }
}

function hear(type, detail) {
  if (session && detail.text) session.understood = true;
  const heard = {
    state: () => show(detail.state, STATES[detail.state](detail)),
    partial: () => transcript.partial(detail),
    final: () => transcript.final(detail),
    closed: () => over("idle", `Done: ${detail.durationS.toFixed(1)} s of audio`, ""),
    failed: () => over("failed", "Stopped", detail.why),
  };
  heard[type]();
}

function over(state, text, problem) {
  session?.stop?.();
  session = null;
  show(state, text);
  complain(problem);
  warnOfQuiet(null);
  setBusy(null);
  transcript.partial(null);
  page.copy.hidden = !transcript.text;
}

function runFile(file) {
  const fast = page.fast.checked;
  run(fast ? "file" : "live", (onFrame, stream) =>
    startFile(file, { fast, hasRoom: () => stream.current?.hasRoom ?? false, onFrame }),
  );
}

function runMicrophone() {
  const level = new Level();
  run("live", (onFrame) =>
    startMicrophone((frame) => {
      level.push(frame);
      warnOfQuiet(level.problem);
      onFrame(frame);
    }),
  );
}

page.microphone.addEventListener("click", () => (session ? session.stop?.() : runMicrophone()));
page.choose.addEventListener("click", () => page.file.click());
page.file.addEventListener("change", () => {
  if (page.file.files.length) runFile(page.file.files[0]);
  page.file.value = ""; // the same file may be chosen again
});
page.copy.addEventListener("click", () => navigator.clipboard.writeText(transcript.text));

document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dropping");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dropping");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  if (event.dataTransfer.files.length) runFile(event.dataTransfer.files[0]);
});
