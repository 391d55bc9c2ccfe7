/** @file One WebSocket to the server, with the interface of `Call`, for where WebRTC does not get through. */

import { ApiError } from "./api.js";
import { hasOpus } from "./audio-codec.js";
import { AudioSink } from "./audio-sink.js";
import { AudioSource } from "./audio-source.js";
import { FlowControl } from "./flow-control.js";
import { KINDS, packMessage, parseMessage } from "./media-message.js";
import { SilenceTimer } from "./silence-timer.js";
import { say } from "./strings.js";
import { sleep } from "./time.js";
import { chooseCodecs } from "./video-codecs.js";
import { AnimatedDecoder, DrivingEncoder } from "./video-coding.js";
import { FrameSink, FrameSource } from "./video-frames.js";

const PATH = "/api/v1/websocket";
const OPENING_MS = 10_000;
const KEYFRAME_EVERY_MS = 500;
const MOST_BUFFERED_BYTES = 64 * 1024;
const [SENT_LOOK_MS, SENT_LOOKS] = [50, 20];

/**
 * The codecs for a WebSocket to this server, and whether it carries sound. Throws `ApiError` with the reason why there
 * can be none.
 * @param {import("./api.js").Api} api
 */
export async function websocketCodecs(api) {
  const { codecs, audioCodecs } = await api.get(PATH).catch((error) => {
    throw error.status === 404 ? new ApiError(say.noWebSocketHere, 404) : error;
  });
  const chosen = await chooseCodecs(codecs);
  if (chosen === null) throw new ApiError(say.noWebCodecs, 400);
  return { ...chosen, sound: audioCodecs.includes("opus") && (await hasOpus()) };
}

/** A connection. `offer` opens it, and `close` ends it in any state. */
export class WebSocketCall {
  /** Whether sound goes with the picture; true until that is known. */ carriesSound = true;
  /** @type {string | null} */ id = null;
  /** @type {WebSocket | null} */ #socket = null;
  /** @type {string[]} */ #unsent = [];
  #over = false;
  #framesSent = 0;
  /** The timestamp of the last frame that came. */
  #received = 0;
  /** When a keyframe was asked for. */
  #requestedAt = -Infinity;
  #flow = new FlowControl();
  /** Resolves when the server has answered the offer, or never will. @type {Promise<void>} */
  #answered = Promise.resolve();
  #silence = new SilenceTimer(() => this.#lose());
  #source = new FrameSource((frame) => this.#encode(frame));
  /** @type {FrameSink | null} */ #sink = null;
  /** @type {DrivingEncoder | null} */ #encoder = null;
  /** @type {AnimatedDecoder | null} */ #decoder = null;
  /** The sound that is sent. @type {MediaStreamTrack | null} */ #sound = null;
  #audioSource = new AudioSource((chunk, timestamp) => this.#sendSound(chunk, timestamp));
  /** @type {AudioSink | null} */ #audioSink = null;

  /**
   * @param {import("./api.js").Api} api
   * @param {import("./call.js").Heard} heard
   */
  constructor(api, heard) {
    this.api = api;
    this.heard = heard;
  }

  /**
   * Send the server a message, at once or as soon as the socket is open.
   * @param {Record<string, unknown>} wish
   */
  send(wish) {
    const text = JSON.stringify(wish);
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(text);
    else this.#unsent.push(text);
  }

  /**
   * Send another driver from now on.
   * @param {MediaStream} driver
   */
  async drive(driver) {
    this.#source.use(driver);
  }

  /**
   * Send this sound from now on, or none, and ask the server to send it back with the result.
   * @param {MediaStreamTrack | null} track
   */
  async useSound(track) {
    this.#sound = track;
    this.send({ audio: track !== null });
    await this.#applySound();
  }

  /** Seconds that a frame spends on the network and in this browser. */
  async delay() {
    return (this.#flow.recent ?? 0) / 1000;
  }

  /** Resolves when a frame of the current driver was sent, or when none can be sent. */
  async frameSent() {
    const before = this.#framesSent;
    for (let look = 0; look < SENT_LOOKS && this.#framesSent === before; look++) await sleep(SENT_LOOK_MS);
  }

  /** Hang up. Resolves when the server has ended the session. */
  async close() {
    this.#over = true;
    this.#silence.stop();
    this.#source.stop();
    this.#audioSource.stop();
    this.#audioSink?.stop();
    this.#encoder?.close();
    this.#decoder?.close();
    this.#sink?.stop();
    this.#socket?.close();
    if (this.id === null) await this.#answered;
    if (this.id === null) return;
    // Also when the page is being left.
    await this.api.request(`${PATH}/offer/${this.id}`, { method: "DELETE", keepalive: true }).catch(() => {});
  }

  /**
   * Offer to the server; resolves when the socket is open. Throws `ApiError`.
   * @param {MediaStream} driver
   * @param {MediaStreamTrack | null} sound
   * @param {Record<string, unknown>} parameters `reference_id` and run parameters
   */
  async offer(driver, sound, parameters) {
    const { driving, animated, sound: carriesSound } = await websocketCodecs(this.api);
    if (this.#over) return;
    this.carriesSound = carriesSound;
    this.#sound = carriesSound ? sound : null;
    const initialParameters = { ...parameters, audio: this.#sound !== null };
    this.#encoder = new DrivingEncoder(driving, (chunk) => this.#sendChunk(chunk));
    this.#decoder = new AnimatedDecoder(animated, (frame) => this.#show(frame), () => this.#requestKeyframe());
    // Not abortable: the server would open the session nevertheless, and its slot would stay taken.
    const asked = this.api.post(`${PATH}/offer`, { drivingCodec: driving, animatedCodec: animated, initialParameters });
    this.#answered = asked.then(({ sessionId }) => void (this.id = sessionId), () => {});
    const { sessionId, token } = await asked;
    if (this.#over) return;
    await this.#open(sessionId, token);
    if (this.#over) return;
    this.#sink = new FrameSink();
    this.heard.stream(this.#sink.stream);
    this.#source.use(driver);
    await this.#applySound();
  }

  /** Take and play sound, if there is to be any and the socket is open. */
  async #applySound() {
    if (this.#over || this.#sink === null) return;
    if (this.#sound === null) {
      this.#audioSource.stop();
      if (this.#audioSink !== null) this.#sink.stream.removeTrack(this.#audioSink.track);
      this.#audioSink?.stop();
      this.#audioSink = null;
      return;
    }
    if (this.#audioSink === null) {
      this.#audioSink = new AudioSink();
      this.#sink.stream.addTrack(this.#audioSink.track);
    }
    await this.#audioSource.use(this.#sound);
  }

  /**
   * @param {string} id
   * @param {string} token
   */
  async #open(id, token) {
    const address = new URL(`${PATH}/${id}`, location.href);
    address.protocol = address.protocol.replace("http", "ws");
    const socket = (this.#socket = new WebSocket(address, ["personalive.v1", `token.${token}`]));
    socket.binaryType = "arraybuffer";
    socket.onmessage = ({ data }) => this.#take(data);
    const opened = await Promise.race([
      new Promise((resolve) => {
        socket.onopen = () => resolve(true);
        socket.onclose = () => resolve(false);
      }),
      sleep(OPENING_MS),
    ]);
    if (this.#over) return;
    if (opened !== true) throw new ApiError(say.webSocketBlocked, 502); // 0 would say that the server does not answer
    socket.onclose = () => this.#lose();
    for (const text of this.#unsent.splice(0)) socket.send(text);
    this.#silence.restart();
  }

  /** @param {string | ArrayBuffer} data */
  #take(data) {
    if (this.#over) return;
    this.#silence.restart();
    if (typeof data === "string") return this.heard.message(JSON.parse(data));
    const message = parseMessage(data);
    if (message.kind === KINDS.video) {
      this.#received = message.timestamp;
      this.#decoder?.decode(message);
    } else if (message.kind === KINDS.audio) this.#audioSink?.decode(message);
    else if (message.kind === KINDS.acknowledgement) this.#flow.acknowledged(message.timestamp, performance.now());
    else if (message.kind === KINDS.keyframeRequest) this.#encoder?.requestKeyframe();
  }

  /** @param {VideoFrame} frame */
  #encode(frame) {
    const encoder = this.#encoder;
    const behind = !encoder || encoder.isBehind || (this.#socket?.bufferedAmount ?? 0) > MOST_BUFFERED_BYTES;
    if (!this.#over && !behind && this.#flow.maySend(performance.now())) encoder.encode(frame, this.#flow.bitrate);
    frame.close();
  }

  /** @param {EncodedVideoChunk} chunk */
  #sendChunk(chunk) {
    if (this.#over || this.#socket?.readyState !== WebSocket.OPEN) return;
    const { byteLength, timestamp } = chunk;
    this.#socket.send(packMessage(KINDS.video, timestamp, payload(chunk, chunk.type === "key")));
    this.#flow.sent(timestamp, byteLength, performance.now());
    this.#framesSent++;
  }

  /**
   * @param {EncodedAudioChunk} chunk
   * @param {number} timestamp
   */
  #sendSound(chunk, timestamp) {
    const socket = this.#socket;
    if (this.#over || socket?.readyState !== WebSocket.OPEN || socket.bufferedAmount > MOST_BUFFERED_BYTES) return;
    if (!this.#flow.maySendSound(performance.now())) return;
    socket.send(packMessage(KINDS.audio, timestamp, payload(chunk)));
    this.#flow.soundSent(chunk.byteLength);
  }

  /** @param {VideoFrame} frame */
  #show(frame) {
    const { timestamp } = frame;
    if (this.#over || this.#sink === null) return frame.close();
    this.#sink.show(frame);
    this.#audioSink?.noteShown(timestamp);
    this.#sendHeader(KINDS.acknowledgement, timestamp);
  }

  /** None of the frames until now will be shown, so they must not count as being on their way. */
  #requestKeyframe() {
    this.#sendHeader(KINDS.acknowledgement, this.#received);
    const now = performance.now();
    if (now - this.#requestedAt < KEYFRAME_EVERY_MS) return;
    this.#requestedAt = now;
    this.#sendHeader(KINDS.keyframeRequest, 0);
  }

  /**
   * @param {number} kind
   * @param {number} timestamp
   */
  #sendHeader(kind, timestamp) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(packMessage(kind, timestamp));
  }

  #lose() {
    if (this.#over) return;
    this.heard.lost(this.close());
  }
}

/**
 * @param {EncodedVideoChunk | EncodedAudioChunk} chunk
 * @param {boolean} [isKeyframe]
 */
function payload(chunk, isKeyframe = false) {
  return { byteLength: chunk.byteLength, isKeyframe, copyTo: (/** @type {Uint8Array} */ to) => chunk.copyTo(to) };
}
