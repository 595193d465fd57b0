// Notices a source of audio that is too quiet to be understood.

import { SAMPLE_RATE } from "./sources.js";

const QUIET_POWER = (32768 * 10 ** (-60 / 20)) ** 2; // -60 dB of full scale; speech is normally about 40 dB louder
const PATIENCE_SAMPLES = 5 * SAMPLE_RATE;

export class Level {
  #quiet = 0; // samples since the last frame that was loud enough
  #still = 0; // samples since the last frame whose samples differed

  // Takes an Int16Array. A constant offset of the samples is no sound.
  push(frame) {
    let sum = 0;
    let squares = 0;
    for (const sample of frame) {
      sum += sample;
      squares += sample ** 2;
    }
    const power = squares / frame.length - (sum / frame.length) ** 2;
    this.#quiet = power > QUIET_POWER ? 0 : this.#quiet + frame.length;
    this.#still = power > 0 ? 0 : this.#still + frame.length;
  }

  // "still": no sound at all came for 5 s. "quiet": none that could be speech. Else null.
  get problem() {
    if (this.#still >= PATIENCE_SAMPLES) return "still";
    return this.#quiet >= PATIENCE_SAMPLES ? "quiet" : null;
  }
}
