/** @file Frames of a video track as they come, and a track of frames. */

/** Calls `onFrame` with each new frame of a track, which it must close. Chromium works in hidden tabs too. */
export class FrameSource {
  /** @type {ReadableStreamDefaultReader<VideoFrame> | null} */ #reader = null;
  /** @type {HTMLVideoElement | null} */ #player = null;

  /** @param {(frame: VideoFrame) => void} onFrame */
  constructor(onFrame) {
    this.onFrame = onFrame;
  }

  /**
   * Take the frames of this stream from now on.
   * @param {MediaStream} stream
   */
  use(stream) {
    this.stop();
    const Processor = Reflect.get(globalThis, "MediaStreamTrackProcessor");
    if (Processor) {
      const processor = new Processor({ track: stream.getVideoTracks()[0], maxBufferSize: 1 });
      this.#reader = processor.readable.getReader();
      void this.#read(/** @type {ReadableStreamDefaultReader<VideoFrame>} */ (this.#reader));
    } else {
      this.#play(stream);
    }
  }

  /** Take no more frames. */
  stop() {
    void this.#reader?.cancel().catch(() => {});
    this.#reader = null;
    if (this.#player) this.#player.srcObject = null;
    this.#player = null;
  }

  /** @param {ReadableStreamDefaultReader<VideoFrame>} reader */
  async #read(reader) {
    for (;;) {
      const { done, value } = await reader.read().catch(() => ({ done: true, value: undefined }));
      if (done || value === undefined) return;
      if (reader === this.#reader) this.onFrame(value);
      else value.close();
    }
  }

  /**
   * Firefox and Safari give frames of a track to workers only, or not at all; they can be taken from what is played.
   * @param {MediaStream} stream
   */
  #play(stream) {
    const player = document.createElement("video");
    this.#player = player;
    Object.assign(player, { muted: true, playsInline: true, srcObject: stream });
    const look = () => {
      if (player !== this.#player) return;
      player.requestVideoFrameCallback(look);
      this.onFrame(new VideoFrame(player, { timestamp: Math.round(1000 * performance.now()) }));
    };
    player.requestVideoFrameCallback(look);
    player.play().catch(() => {}); // stopped before it began
  }
}

/** A track that shows frames, as `stream`. */
export class FrameSink {
  /** @type {WritableStreamDefaultWriter<VideoFrame> | null} */ #writer = null;
  /** @type {HTMLCanvasElement | null} */ #canvas = null;

  constructor() {
    const Generator = Reflect.get(globalThis, "MediaStreamTrackGenerator");
    if (Generator) {
      const track = new Generator({ kind: "video" });
      this.#writer = /** @type {WritableStreamDefaultWriter<VideoFrame>} */ (track.writable.getWriter());
      this.stream = new MediaStream([track]);
    } else {
      this.#canvas = document.createElement("canvas");
      this.#canvas.getContext("2d");
      this.stream = this.#canvas.captureStream();
    }
  }

  /**
   * Show a frame, which is closed then.
   * @param {VideoFrame} frame
   */
  show(frame) {
    if (this.#writer) {
      this.#writer.write(frame).catch(() => frame.close());
      return;
    }
    const canvas = /** @type {HTMLCanvasElement} */ (this.#canvas);
    if (canvas.width !== frame.displayWidth || canvas.height !== frame.displayHeight) {
      Object.assign(canvas, { width: frame.displayWidth, height: frame.displayHeight });
    }
    canvas.getContext("2d")?.drawImage(frame, 0, 0);
    frame.close();
  }

  /** End the track. */
  stop() {
    void this.#writer?.close().catch(() => {});
    this.#writer = null;
    for (const track of this.stream.getTracks()) track.stop();
  }
}
