// Runs in the audio thread: the microphone's blocks in, 100 ms frames of 16 kHz Int16 out.

import { Resampler, toInt16 } from "./resampler.js";

const FRAME_SAMPLES = 1600; // 100 ms

class Capture extends AudioWorkletProcessor {
  constructor() {
    super();
    this.resampler = new Resampler(sampleRate);
    this.frame = new Float32Array(FRAME_SAMPLES);
    this.filled = 0;
    this.over = false;
    this.port.onmessage = () => this.finish();
  }

  process([channels]) {
    if (!this.over && channels.length) this.take(this.resampler.push(mixDown(channels)));
    return !this.over;
  }

  take(samples) {
    for (const sample of samples) {
      this.frame[this.filled++] = sample;
      if (this.filled === FRAME_SAMPLES) this.post();
    }
  }

  post() {
    const frame = toInt16(this.frame.subarray(0, this.filled));
    this.filled = 0;
    this.port.postMessage(frame, [frame.buffer]);
  }

  finish() {
    this.take(this.resampler.flush());
    if (this.filled) this.post();
    this.over = true;
    this.port.postMessage(null); // no more frames
  }
}

function mixDown(channels) {
  if (channels.length === 1) return channels[0];
  return channels[0].map((_, i) => channels.reduce((sum, channel) => sum + channel[i], 0) / channels.length);
}

registerProcessor("capture", Capture);
