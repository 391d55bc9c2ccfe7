/** @file A track of the sound that comes, in step with the pictures that are shown. */

import { DECODER, RATE } from "./audio-codec.js";

/** Pictures whose median delay counts, and packets of sound: a second, and five. */
const [PICTURES, PACKETS] = [30, 250];
const ARRIVAL_QUANTILE = 0.95;
/** How long before it is played sound should be there. */
const MARGIN_MS = 10;
/** Sound that is this far from where it belongs is played faster or slower, which nobody hears; or it is cut. */
const [TOLERANCE_S, MOST_ERROR_S] = [0.008, 0.06];
const RATE_CHANGE = 0.01;
/** The clock of what is played goes in steps. */
const SMOOTHING = 0.1;
/** A longer gap between two packets is sound that was left out. */
const GAP_US = 5000;

/** Plays packets on `track`. */
export class AudioSink {
  #context = new AudioContext({ sampleRate: RATE });
  #out = this.#context.createMediaStreamDestination();
  /** @type {AudioDecoder | null} */ #decoder = null;
  /** From a picture's timestamp to its being shown, in milliseconds. @type {number[]} */
  #shown = [];
  /** From a packet's timestamp until it could be played. @type {number[]} */
  #arrivals = [];
  /** When the next sample is played, by the context's clock. */
  #next = 0;
  /** By how many seconds that is later than it should be. */
  #error = 0;
  /** The timestamp of the next sample, in microseconds. */
  #end = 0;

  constructor() {
    [this.track] = this.#out.stream.getAudioTracks();
    // Where nothing is connected, Chromium gives no silence but nothing.
    const silence = new ConstantSourceNode(this.#context, { offset: 0 });
    silence.connect(this.#out);
    silence.start();
    void this.#context.resume();
  }

  /**
   * A picture with that timestamp, in microseconds, is shown now.
   * @param {number} timestamp
   */
  noteShown(timestamp) {
    keep(this.#shown, performance.now() - timestamp / 1000, PICTURES);
  }

  /** @param {import("./media-message.js").MediaMessage} message */
  decode({ timestamp, payload }) {
    if (this.#decoder === null || this.#decoder.state === "closed") {
      this.#decoder = new AudioDecoder({ output: (data) => this.#play(data), error: () => {} });
      this.#decoder.configure(DECODER);
    }
    this.#decoder.decode(new EncodedAudioChunk({ type: "key", timestamp, data: payload }));
  }

  /** End the track. */
  stop() {
    if (this.#decoder && this.#decoder.state !== "closed") this.#decoder.close();
    this.#decoder = null;
    this.track.stop();
    if (this.#context.state !== "closed") void this.#context.close();
  }

  /** @param {AudioData} data */
  #play(data) {
    const context = this.#context;
    const late = performance.now() - data.timestamp / 1000;
    keep(this.#arrivals, late, PACKETS);
    if (context.state === "running") {
      const due = context.currentTime + (this.#delay() - late) / 1000;
      this.#schedule(data, due);
    }
    this.#end = data.timestamp + data.duration;
    data.close();
  }

  /**
   * @param {AudioData} data
   * @param {number} due when it should be played, by the context's clock
   */
  #schedule(data, due) {
    const now = this.#context.currentTime;
    const gap = data.timestamp - this.#end;
    if (gap > GAP_US) this.#next += gap / 1e6;
    this.#error += SMOOTHING * (this.#next - due - this.#error);
    if (this.#error > MOST_ERROR_S && this.#next >= now) {
      this.#error -= data.duration / 1e6; // left out, so that what follows is sooner
      return;
    }
    if (this.#next < now || this.#error < -MOST_ERROR_S) [this.#next, this.#error] = [Math.max(due, now), 0];
    const change = Math.abs(this.#error) > TOLERANCE_S ? RATE_CHANGE * Math.sign(this.#error) : 0;
    const player = this.#context.createBufferSource();
    player.buffer = toBuffer(this.#context, data);
    player.playbackRate.value = 1 + change;
    player.connect(this.#out);
    player.start(this.#next);
    this.#next += player.buffer.duration / (1 + change);
  }

  /** How much later than its timestamp sound is to be played, in milliseconds: as a picture, or more where it comes so late. */
  #delay() {
    return Math.max(quantile(this.#arrivals, ARRIVAL_QUANTILE) + MARGIN_MS, quantile(this.#shown, 0.5));
  }
}

/**
 * @param {AudioContext} context
 * @param {AudioData} data
 */
function toBuffer(context, data) {
  const { numberOfChannels, numberOfFrames, sampleRate } = data;
  const buffer = context.createBuffer(numberOfChannels, numberOfFrames, sampleRate);
  for (let channel = 0; channel < numberOfChannels; channel++) {
    data.copyTo(buffer.getChannelData(channel), { planeIndex: channel, format: "f32-planar" });
  }
  return buffer;
}

/**
 * @param {number[]} kept
 * @param {number} value
 * @param {number} most
 */
function keep(kept, value, most) {
  kept.push(value);
  if (kept.length > most) kept.shift();
}

/**
 * @param {number[]} values
 * @param {number} share
 */
function quantile(values, share) {
  const ordered = values.toSorted((one, other) => one - other);
  return ordered[Math.ceil(share * (ordered.length - 1))] ?? -Infinity;
}
