// The sources of audio. Each calls `onFrame` with Int16Array frames of 16 kHz mono until it ends or is stopped.

import { toInt16 } from "./resampler.js";

export const SAMPLE_RATE = 16000;
const FRAME_SAMPLES = SAMPLE_RATE / 10;
const MAX_FILE_BYTES = 200e6; // a file is decoded as a whole, in memory
const ROOM_POLL_MS = 20;

export class AudioProblem extends Error {}

const MICROPHONE_PROBLEMS = {
  NotAllowedError: "The browser blocked the microphone. Allow it for this page (icon beside the address), then start again.",
  NotFoundError: "No microphone was found. Connect one, then start again.",
  NotReadableError: "The microphone cannot be used. Another program may be using it.",
};

async function openMicrophone() {
  try {
    // Unprocessed audio: noise suppression helps listeners, and removes sounds that the model can use.
    const audio = { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false };
    return await navigator.mediaDevices.getUserMedia({ audio });
  } catch (error) {
    throw new AudioProblem(MICROPHONE_PROBLEMS[error.name] ?? `The microphone cannot be used: ${error.message}`);
  }
}

// Start the microphone; returns { stop, ended }: `ended` resolves once the last frame is out.
export async function startMicrophone(onFrame) {
  if (!navigator.mediaDevices) {
    throw new AudioProblem("Browsers allow the microphone only on pages from https or from this machine (localhost).");
  }
  const context = new AudioContext();
  try {
    await context.audioWorklet.addModule("capture-worklet.js"); // before the microphone opens, so that no word is lost while it loads
    return capture(context, await openMicrophone(), onFrame);
  } catch (error) {
    await context.close();
    throw error;
  }
}

function capture(context, media, onFrame) {
  const node = new AudioWorkletNode(context, "capture", { numberOfOutputs: 0 });
  const stop = () => node.port.postMessage("stop");
  const ended = new Promise((resolve) => {
    node.port.onmessage = ({ data }) => (data ? onFrame(data) : resolve());
  }).then(() => {
    media.getTracks().forEach((track) => track.stop());
    return context.close();
  });
  media.getTracks().forEach((track) => track.addEventListener("ended", stop)); // unplugged
  context.createMediaStreamSource(media).connect(node);
  return { stop, ended };
}

// Stream a file: with `fast` as quickly as `hasRoom()` allows, else in real time.
export async function startFile(file, { fast, hasRoom, onFrame }) {
  const samples = await decode(file);
  let stopped = false;
  const stop = () => (stopped = true);
  return { stop, ended: sendPaced(samples, { fast, hasRoom, onFrame, isStopped: () => stopped }) };
}

async function sendPaced(samples, { fast, hasRoom, onFrame, isStopped }) {
  const began = performance.now();
  for (let at = 0; at < samples.length && !isStopped(); at += FRAME_SAMPLES) {
    const frame = samples.subarray(at, at + FRAME_SAMPLES);
    const spokenMs = ((at + frame.length) * 1000) / SAMPLE_RATE;
    if (!fast) await sleep(spokenMs - (performance.now() - began));
    while (!hasRoom() && !isStopped()) await sleep(ROOM_POLL_MS);
    onFrame(toInt16(frame));
  }
}

async function decode(file) {
  if (file.size > MAX_FILE_BYTES) {
    throw new AudioProblem(`${file.name} is too large for a browser. The command "whisperline stream" takes files of any length.`);
  }
  try {
    const buffer = await new OfflineAudioContext(1, 1, SAMPLE_RATE).decodeAudioData(await file.arrayBuffer());
    return mixDown(buffer);
  } catch (error) {
    throw new AudioProblem(`${file.name} cannot be read as audio: ${error.message}`);
  }
}

function mixDown(buffer) {
  const mixed = buffer.getChannelData(0).slice();
  for (let channel = 1; channel < buffer.numberOfChannels; channel++) {
    buffer.getChannelData(channel).forEach((sample, i) => (mixed[i] += sample));
  }
  return mixed.map((sample) => sample / buffer.numberOfChannels);
}

const sleep = (ms) => (ms > 0 ? new Promise((resolve) => setTimeout(resolve, ms)) : Promise.resolve());
