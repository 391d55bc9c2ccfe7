/** @file An encoder of driving frames and a decoder of animated ones, which begin again after an error. */

import { decoderConfig, encoderConfig } from "./video-codecs.js";

const MOST_PIXELS = 1280 * 720;
/** Frames that may wait for the encoder. */
const MOST_WAITING = 1;
/** A decoder that has given nothing for this long since it was given a frame has broken down without an error. */
const MOST_DECODING_MS = 2000;

/** Encodes the frames that it is given. */
export class DrivingEncoder {
  /** @type {VideoEncoder | null} */ #encoder = null;
  #shape = { width: 0, height: 0, bitrate: 0 };
  #timestamp = 0;
  #wantsKeyframe = true;

  /**
   * @param {import("./video-codecs.js").CodecName} codec
   * @param {(chunk: EncodedVideoChunk) => void} onChunk
   */
  constructor(codec, onChunk) {
    this.codec = codec;
    this.onChunk = onChunk;
  }

  /** Whether it has more to do than it should. */
  get isBehind() {
    return (this.#encoder?.encodeQueueSize ?? 0) > MOST_WAITING;
  }

  /** The next frame must be a keyframe. */
  requestKeyframe() {
    this.#wantsKeyframe = true;
  }

  /**
   * @param {VideoFrame} frame
   * @param {number} bitrate bits per second
   */
  encode(frame, bitrate) {
    const encoder = this.#configured(frame, bitrate);
    this.#timestamp = Math.max(this.#timestamp + 1, Math.round(1000 * performance.now()));
    const stamped = new VideoFrame(frame, { timestamp: this.#timestamp });
    encoder.encode(stamped, { keyFrame: this.#wantsKeyframe });
    this.#wantsKeyframe = false;
    stamped.close();
  }

  close() {
    if (this.#encoder && this.#encoder.state !== "closed") this.#encoder.close();
    this.#encoder = null;
  }

  /**
   * @param {VideoFrame} frame
   * @param {number} bitrate
   */
  #configured(frame, bitrate) {
    const { width, height } = reduced(frame.displayWidth, frame.displayHeight);
    const shape = this.#shape;
    const fresh = this.#encoder === null || this.#encoder.state === "closed";
    if (fresh) {
      this.#encoder = new VideoEncoder({ output: this.onChunk, error: () => {} });
      this.#wantsKeyframe = true;
    }
    const encoder = /** @type {VideoEncoder} */ (this.#encoder);
    if (fresh || shape.width !== width || shape.height !== height || shape.bitrate !== bitrate) {
      if (shape.width !== width || shape.height !== height) this.#wantsKeyframe = true;
      this.#shape = { width, height, bitrate };
      encoder.configure(encoderConfig(this.codec, width, height, bitrate));
    }
    return encoder;
  }
}

/** Decodes the frames of the server. */
export class AnimatedDecoder {
  /** @type {VideoDecoder | null} */ #decoder = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #timer;
  /** The timestamp of the last frame that it was given. */
  #last = 0;

  /**
   * @param {import("./video-codecs.js").CodecName} codec
   * @param {(frame: VideoFrame) => void} onFrame
   * @param {() => void} onKeyframeNeeded
   */
  constructor(codec, onFrame, onKeyframeNeeded) {
    this.codec = codec;
    this.onFrame = onFrame;
    this.onKeyframeNeeded = onKeyframeNeeded;
  }

  /** @param {import("./media-message.js").MediaMessage} message */
  decode({ isKeyframe, timestamp, payload }) {
    if (this.#decoder === null || this.#decoder.state === "closed") {
      if (!isKeyframe) return this.onKeyframeNeeded();
      this.#decoder = new VideoDecoder({ output: (frame) => this.#give(frame), error: () => this.#replace() });
      this.#decoder.configure(decoderConfig(this.codec));
    }
    this.#last = timestamp;
    this.#startTimer();
    this.#decoder.decode(new EncodedVideoChunk({ type: isKeyframe ? "key" : "delta", timestamp, data: payload }));
  }

  close() {
    this.#stopTimer();
    if (this.#decoder && this.#decoder.state !== "closed") this.#decoder.close();
    this.#decoder = null;
  }

  /** @param {VideoFrame} frame */
  #give(frame) {
    this.#stopTimer();
    if (frame.timestamp < this.#last) this.#startTimer();
    this.onFrame(frame);
  }

  /** The server waits for the acknowledgement of a frame that will not come, so it may send nothing until it is asked. */
  #replace() {
    this.close();
    this.onKeyframeNeeded();
  }

  #startTimer() {
    this.#timer ??= setTimeout(() => this.#replace(), MOST_DECODING_MS);
  }

  #stopTimer() {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }
}

/**
 * A size with at most as many pixels as the server has use for, and even sides, as codecs need.
 * @param {number} width
 * @param {number} height
 */
function reduced(width, height) {
  const scale = Math.min(1, Math.sqrt(MOST_PIXELS / (width * height)));
  const even = (/** @type {number} */ side) => Math.max(2, 2 * Math.round((side * scale) / 2));
  return { width: even(width), height: even(height) };
}
