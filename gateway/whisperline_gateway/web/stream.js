// One session with a gateway, over as many sockets as it takes. docs/protocol.md describes `WS /v1/listen`.
// Audio is kept until it is acknowledged; a lost session is resumed from the position that the gateway names.

import { SAMPLE_RATE } from "./sources.js";

const BUFFER_SAMPLES = 120 * SAMPLE_RATE; // the most that may wait to be acknowledged
const SOCKET_BYTES = 256 * 1024; // the most that may wait in the browser's socket
const KEEP_ALIVE_MS = 4000; // the gateway closes a connection that is silent for 12 s
const FIRST_RETRY_MS = 200;
const MAX_RETRY_MS = 5000;
const RETRY_DEADLINE_MS = 120000; // counted from the stream's last progress
const START_DEADLINE_MS = 10000; // the same while no gateway has opened the session yet
const CLOSE_TIMEOUT_MS = 30000; // longest wait for a message after CloseStream
const HAND_IN_TIMES = 1800; // three minutes of 100 ms frames
const PASSING_CLOSE_CODES = new Set([1000, 1001, 1005, 1006, 1011, 1012, 1013, 1014]);

export class Stream {
  #frames = []; // { start, samples }: handed in, not acknowledged
  #end = 0; // position after the last sample that was handed in
  #next = null; // position of the next sample to send; null until the gateway has named it
  #times = []; // { end, at }: when the audio before `end` was handed in
  #nextSegment = 0;
  #ended = false;
  #closeSent = false;
  #summary = null;
  #fault = null;
  #sessionId = null;
  #token = null;
  #socket = null;
  #attempts = 0;
  #progressAt = performance.now();
  #lastSentAt = 0;
  #closeTimer = null;
  #over = false;

  // Calls `emit(type, detail)` with the types state, partial, final, closed and failed.
  constructor(query, emit) {
    this.query = query;
    this.emit = emit;
    this.timer = setInterval(() => this.#pump(), 50); // a socket has no event for having room again
    this.#connect();
  }

  get hasRoom() {
    return this.#end - this.#start() < BUFFER_SAMPLES && this.#end - (this.#next ?? 0) < SAMPLE_RATE;
  }

  push(samples) {
    if (this.#over) return;
    if (this.#end - this.#start() > BUFFER_SAMPLES) {
      this.#fail("The connection was lost for too long, and no more audio could be kept.");
      return;
    }
    this.#frames.push({ start: this.#end, samples });
    this.#end += samples.length;
    this.#times.push({ end: this.#end, at: performance.now() });
    if (this.#times.length > HAND_IN_TIMES) this.#times.shift();
    this.#pump();
  }

  // No more audio will come: the session closes once the gateway has sent its last final.
  finish() {
    this.#ended = true;
    if (!this.#over) this.emit("state", { state: "closing" });
    this.#pump();
  }

  #start() {
    return this.#frames.length ? this.#frames[0].start : this.#end;
  }

  #url() {
    const query = new URLSearchParams({
      encoding: "linear16", sample_rate: SAMPLE_RATE, channels: 1, interim_results: true, acks: true, ...this.query,
    });
    if (this.#token) {
      query.set("session_id", this.#sessionId);
      query.set("resume_token", this.#token);
      query.set("finals_from", this.#nextSegment);
    }
    const url = new URL(`v1/listen?${query}`, document.baseURI);
    url.protocol = url.protocol.replace("http", "ws");
    return url;
  }

  #connect() {
    this.#next = null;
    this.#closeSent = false;
    this.#fault = this.#summary = null;
    if (!this.#attempts) this.emit("state", { state: "connecting" });
    const socket = new WebSocket(this.#url());
    this.#socket = socket;
    socket.onmessage = ({ data }) => socket === this.#socket && this.#take(JSON.parse(data));
    socket.onclose = ({ code, reason }) => socket === this.#socket && this.#lost(code, reason);
  }

  #take(message) {
    const heard = {
      SessionStarted: () => this.#goOn(message),
      Resumed: () => this.#goOn(message),
      Ack: () => this.#acknowledge(message),
      Results: () => (message.is_final ? this.#final(message) : this.#partial(message)),
      Metadata: () => (this.#summary = message),
      Error: () => (this.#fault = message),
    };
    heard[message.type]?.();
    if (this.#closeSent) this.#expectMore();
  }

  #goOn({ session_id, resume_token, position }) {
    this.#sessionId = session_id;
    this.#token = resume_token;
    if (position < this.#start() || position > this.#end) {
      this.#fail("The gateway asked for audio that this page no longer has.");
      return;
    }
    this.#next = position;
    this.emit("state", { state: this.#ended ? "closing" : "live", sessionId: session_id });
    this.#pump();
  }

  #acknowledge({ position, resume_token }) {
    this.#token = resume_token;
    while (this.#frames.length && this.#frames[0].start + this.#frames[0].samples.length <= position) {
      this.#frames.shift();
      this.#progressed();
    }
  }

  #progressed() {
    this.#attempts = 0;
    this.#progressAt = performance.now();
  }

  #partial(message) {
    if (message.segment_index < this.#nextSegment) return;
    const { transcript, stable_transcript = "" } = message.channel.alternatives[0];
    this.emit("partial", { startS: message.start, text: transcript, stable: stable_transcript });
  }

  #final(message) {
    const index = message.segment_index;
    if (index === null || index < this.#nextSegment) return; // the answer to a Finalize without speech, or a final that came before
    if (index > this.#nextSegment) {
      this.#socket.close(); // one is missing; the next connection asks for it
      return;
    }
    this.#nextSegment++;
    this.#progressed();
    const { transcript, words } = message.channel.alternatives[0];
    const spokenS = words.length ? words.at(-1).end : message.start + message.duration;
    const delayS = this.#delayS(spokenS);
    this.emit("final", { index, startS: message.start, text: transcript, delayS, endsTurn: message.speech_final });
  }

  #delayS(spokenS) {
    const handedIn = this.#times.find(({ end }) => end >= Math.floor(spokenS * SAMPLE_RATE));
    return handedIn ? (performance.now() - handedIn.at) / 1000 : null;
  }

  #pump() {
    const socket = this.#socket;
    if (this.#over || this.#next === null || socket.readyState !== WebSocket.OPEN) return;
    for (const { start, samples } of this.#frames) {
      if (start + samples.length <= this.#next) continue;
      if (socket.bufferedAmount > SOCKET_BYTES) return;
      socket.send(samples.subarray(this.#next - start)); // part of a frame, when a resumed session continues inside it
      this.#next = start + samples.length;
      this.#lastSentAt = performance.now();
    }
    if (this.#ended && !this.#closeSent) this.#close(socket);
    if (!this.#ended && performance.now() - this.#lastSentAt > KEEP_ALIVE_MS) this.#say(socket, "KeepAlive");
  }

  #close(socket) {
    this.#closeSent = true;
    this.#say(socket, "CloseStream");
    this.#expectMore();
  }

  #expectMore() {
    const socket = this.#socket;
    clearTimeout(this.#closeTimer);
    this.#closeTimer = setTimeout(() => socket === this.#socket && !this.#over && socket.close(), CLOSE_TIMEOUT_MS);
  }

  #say(socket, type) {
    this.#lastSentAt = performance.now();
    socket.send(JSON.stringify({ type }));
  }

  #lost(code, reason) {
    if (this.#over) return;
    if (code === 1000 && this.#summary && this.#summary.segment_count <= this.#nextSegment) {
      this.#stop();
      this.emit("closed", { durationS: this.#summary.duration, sessionId: this.#sessionId });
    } else if (!PASSING_CLOSE_CODES.has(code)) {
      this.#fail(this.#why(code, reason));
    } else {
      this.#retry(this.#why(code, reason));
    }
  }

  #why(code, reason) {
    const fault = this.#fault;
    return fault ? `${fault.message} ${fault.action ?? ""}`.trim() : reason || `The connection was closed (${code}).`;
  }

  #retry(why) {
    const ceiling = Math.min(MAX_RETRY_MS, FIRST_RETRY_MS * 2 ** this.#attempts++);
    const delayMs = ceiling * (0.5 + Math.random() / 2);
    if (performance.now() + delayMs - this.#progressAt > (this.#token ? RETRY_DEADLINE_MS : START_DEADLINE_MS)) {
      this.#fail(`The gateway cannot be reached. ${why}`);
      return;
    }
    this.#next = null;
    this.emit("state", { state: "reconnecting", delayS: delayMs / 1000, opened: Boolean(this.#token) });
    setTimeout(() => !this.#over && this.#connect(), delayMs);
  }

  #fail(why) {
    this.#stop();
    this.emit("failed", { why });
  }

  #stop() {
    this.#over = true;
    clearInterval(this.timer);
    clearTimeout(this.#closeTimer);
    this.#socket.close();
  }
}
