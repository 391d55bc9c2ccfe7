/** @file The sound of a track, encoded as it comes. */

import { BLOCK, CHANNELS, ENCODER, LOOKAHEAD_US, RATE } from "./audio-codec.js";

/** Blocks that may wait for the encoder. */
const MOST_WAITING = 5;
/** Blocks of which the one that came soonest says when sound was captured: two seconds. */
const ARRIVALS = 100;

/** Calls `onPacket` with each packet of a track's sound, and when it was captured, in microseconds of `performance.now`. */
export class AudioSource {
  /** @type {AudioContext | null} */ #context = null;
  /** @type {AudioEncoder | null} */ #encoder = null;
  /** From the time by the count of samples until the arrival, in milliseconds. @type {number[]} */
  #arrivals = [];
  #timestamp = 0;

  /** @param {(chunk: EncodedAudioChunk, timestamp: number) => void} onPacket */
  constructor(onPacket) {
    this.onPacket = onPacket;
  }

  /**
   * Take the sound of this track from now on.
   * @param {MediaStreamTrack} track
   */
  async use(track) {
    this.stop();
    const context = (this.#context = new AudioContext({ sampleRate: RATE }));
    try {
      await context.audioWorklet.addModule(new URL("./sound-worklet.js", import.meta.url));
    } catch (error) {
      if (context === this.#context) throw error;
    }
    if (context !== this.#context) return; // stopped meanwhile
    const blocks = new AudioWorkletNode(context, "sound-blocks", {
      numberOfOutputs: 0,
      channelCount: CHANNELS,
      channelCountMode: "explicit",
    });
    blocks.port.onmessage = ({ data }) => context === this.#context && this.#encode(data.begin, data.samples);
    context.createMediaStreamSource(new MediaStream([track])).connect(blocks);
    void context.resume();
  }

  /** Take no more sound. */
  stop() {
    void this.#context?.close();
    this.#context = null;
    this.#arrivals = [];
    if (this.#encoder && this.#encoder.state !== "closed") this.#encoder.close();
    this.#encoder = null;
  }

  /**
   * @param {number} begin the number of the first sample
   * @param {Float32Array<ArrayBuffer>} samples one channel after the other
   */
  #encode(begin, samples) {
    this.#arrivals.push(performance.now() - (1000 * (begin + BLOCK)) / RATE);
    if (this.#arrivals.length > ARRIVALS) this.#arrivals.shift();
    if (this.#encoder === null || this.#encoder.state === "closed") {
      this.#encoder = new AudioEncoder({ output: (chunk) => this.#send(chunk), error: () => {} });
      this.#encoder.configure(ENCODER);
    }
    if (this.#encoder.encodeQueueSize > MOST_WAITING) return;
    const timestamp = Math.round((1e6 * begin) / RATE);
    const shape = { format: /** @type {const} */ ("f32-planar"), sampleRate: RATE, numberOfFrames: BLOCK, numberOfChannels: CHANNELS };
    const data = new AudioData({ ...shape, timestamp, data: samples });
    this.#encoder.encode(data);
    data.close();
  }

  /** @param {EncodedAudioChunk} chunk */
  #send(chunk) {
    const captured = chunk.timestamp + 1000 * Math.min(...this.#arrivals) - LOOKAHEAD_US;
    this.#timestamp = Math.max(this.#timestamp + 1, Math.round(captured));
    this.onPacket(chunk, this.#timestamp);
  }
}
