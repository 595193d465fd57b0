// Audio of any rate to 16 kHz: a polyphase low-pass filter (windowed sinc, Kaiser window), so that nothing above
// 8 kHz folds back into speech. J. O. Smith, "Digital Audio Resampling Home Page", CCRMA.

const ZERO_CROSSINGS = 24; // on each side of the filter's centre
const KAISER_BETA = 8.0; // about 80 dB below the pass band
const PASS_BAND = 0.95; // of the lower Nyquist frequency: the rest is the filter's slope

const gcd = (a, b) => (b ? gcd(b, a % b) : a);

function besselI0(x) {
  let sum = 1;
  for (let term = 1, k = 1; term > 1e-12 * sum; k++) {
    term *= (x / (2 * k)) ** 2;
    sum += term;
  }
  return sum;
}

// One row of taps for each of the `up` positions that an output sample can have between two input samples.
function polyphase(up, down) {
  const cutoff = PASS_BAND * Math.min(1, up / down); // of the input's Nyquist frequency
  const half = Math.ceil(ZERO_CROSSINGS / cutoff);
  const phases = [];
  for (let phase = 0; phase < up; phase++) {
    const taps = new Float32Array(2 * half);
    let sum = 0;
    for (let i = 0; i < taps.length; i++) {
      const t = i - half + 1 - phase / up; // input samples from the output sample's place
      const x = Math.PI * cutoff * t;
      const window = Math.abs(t) >= half ? 0 : besselI0(KAISER_BETA * Math.sqrt(1 - (t / half) ** 2));
      taps[i] = (x === 0 ? 1 : Math.sin(x) / x) * window;
      sum += taps[i];
    }
    phases.push(taps.map((tap) => tap / sum));
  }
  return { phases, half };
}

export class Resampler {
  constructor(inputRate, outputRate = 16000) {
    const divisor = gcd(Math.round(inputRate), outputRate);
    this.up = outputRate / divisor;
    this.down = Math.round(inputRate) / divisor;
    ({ phases: this.phases, half: this.half } = polyphase(this.up, this.down));
    this.history = new Float32Array(this.half - 1); // silence before the first sample
    this.place = 0; // of the next output sample: whole input samples into `history`, and `phase` / up of one
    this.phase = 0;
  }

  // Float32Array of input samples in, Float32Array of the output samples that they complete out.
  push(samples) {
    if (this.up === this.down) return samples;
    const input = new Float32Array(this.history.length + samples.length);
    input.set(this.history);
    input.set(samples, this.history.length);
    const output = [];
    while (this.place + 2 * this.half <= input.length) {
      const taps = this.phases[this.phase];
      let sum = 0;
      for (let i = 0; i < taps.length; i++) sum += taps[i] * input[this.place + i];
      output.push(sum);
      this.phase += this.down;
      this.place += Math.floor(this.phase / this.up);
      this.phase %= this.up;
    }
    const kept = Math.min(this.place, input.length);
    this.history = input.slice(kept);
    this.place -= kept;
    return Float32Array.from(output);
  }

  // Returns the last output samples, with silence in place of the input that will not come.
  flush() {
    return this.push(new Float32Array(this.half));
  }
}

export function toInt16(samples) {
  return Int16Array.from(samples, (sample) => Math.max(-32768, Math.min(32767, Math.round(sample * 32768))));
}
