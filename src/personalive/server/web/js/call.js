/** @file One WebRTC connection to the server, which sends a driver and receives the animated portrait. */

import { SilenceTimer } from "./silence-timer.js";
import { sleep } from "./time.js";

const SESSIONS = "/api/v1/webrtc/offer";
const UNSTABLE_MS = 4000;
const SENT_LOOK_MS = 50;
const SENT_LOOKS = 20;

/**
 * @typedef {object} Heard
 * @property {(stream: MediaStream) => void} stream
 * @property {(message: Record<string, any>) => void} message over the data channel
 * @property {(left: Promise<void>) => void} lost the server is gone, or cannot be reached any more; not called after
 *   `close`. `left` resolves when it has ended the session
 */

/** A connection. `offer` opens it, and `close` ends it in any state. */
export class Call {
  /** Whether sound goes with the picture. */ carriesSound = true;
  /** @type {string | null} */ id = null;
  /** @type {RTCIceCandidate[]} */ #found = [];
  /** @type {Record<string, unknown>[]} */ #unsent = [];
  #over = false;
  /** @type {(connected: boolean) => void} */ #settle = () => {};
  /** Whether it got through: resolves when it is connected, or closed before that. @type {Promise<boolean>} */
  connected = new Promise((resolve) => (this.#settle = resolve));
  /** Resolves when the server has answered the offer, or never will. @type {Promise<void>} */
  #answered = Promise.resolve();
  #silence = new SilenceTimer(() => this.#lose());
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #unstable;

  /**
   * @param {import("./api.js").Api} api
   * @param {Heard} heard
   * @param {RTCIceServer[]} iceServers
   */
  constructor(api, heard, iceServers) {
    this.api = api;
    this.heard = heard;
    this.peer = new RTCPeerConnection({ iceServers });
    this.channel = this.peer.createDataChannel("parameters");
    this.peer.ontrack = ({ track, streams }) => {
      // The sound comes in the same stream.
      if (track.kind === "video") heard.stream(streams[0] ?? new MediaStream([track]));
    };
    this.peer.onicecandidate = ({ candidate }) => this.#trickle(candidate);
    this.peer.onconnectionstatechange = () => this.#watchState();
    this.channel.onopen = () => {
      for (const wish of this.#unsent.splice(0)) this.send(wish);
      this.#silence.restart();
    };
    this.channel.onmessage = ({ data }) => {
      this.#silence.restart();
      heard.message(JSON.parse(data));
    };
    this.channel.onclose = () => this.#lose();
  }

  /**
   * Send the server a message, at once or as soon as the channel is open.
   * @param {Record<string, unknown>} wish
   */
  send(wish) {
    if (this.channel.readyState === "open") this.channel.send(JSON.stringify(wish));
    else this.#unsent.push(wish);
  }

  /**
   * Send another driver from now on.
   * @param {MediaStream} driver
   */
  async drive(driver) {
    await this.peer.getSenders()[0]?.replaceTrack(driver.getVideoTracks()[0]);
  }

  /**
   * Send this sound from now on, or none, and ask the server to send it back with the result.
   * @param {MediaStreamTrack | null} track
   */
  async useSound(track) {
    await this.peer.getSenders()[1]?.replaceTrack(track);
    this.send({ audio: track !== null });
  }

  /** Seconds that a frame spends on the network and in this browser before it is shown. */
  async delay() {
    let seconds = 0;
    for (const report of (await this.peer.getStats()).values()) {
      if (report.type === "candidate-pair" && report.nominated) seconds += report.currentRoundTripTime ?? 0;
      if (report.type === "inbound-rtp" && report.kind === "video" && report.jitterBufferEmittedCount > 0) {
        seconds += report.jitterBufferDelay / report.jitterBufferEmittedCount;
      }
    }
    return seconds;
  }

  /** Resolves when a frame of the current driver was sent, or when none can be sent. */
  async frameSent() {
    const before = await this.#framesSent();
    for (let look = 0; look < SENT_LOOKS && (await this.#framesSent()) === before; look++) await sleep(SENT_LOOK_MS);
  }

  /** Whether it was closed, or lost. */
  get isClosed() {
    return this.#over;
  }

  /** Hang up, and tell the server. Resolves when the server has ended the session. */
  async close() {
    this.#over = true;
    this.#settle(false);
    this.#silence.stop();
    clearTimeout(this.#unstable);
    this.peer.close();
    if (this.id === null) await this.#answered;
    if (this.id === null) return;
    // Also when the page is being left.
    await this.api.request(`${SESSIONS}/${this.id}`, { method: "DELETE", keepalive: true }).catch(() => {});
  }

  /**
   * Offer to the server; resolves when it has answered. Throws `ApiError`.
   * @param {MediaStream} driver
   * @param {MediaStreamTrack | null} sound
   * @param {Record<string, unknown>} initialParameters `reference_id` and run parameters
   */
  async offer(driver, sound, initialParameters) {
    this.peer.addTransceiver(driver.getVideoTracks()[0], { direction: "sendrecv", streams: [driver] });
    // A section for sound from the start, so that it can be switched on and off without another offer.
    const audio = this.peer.addTransceiver("audio", { direction: "sendrecv", streams: [driver] });
    if (sound) await audio.sender.replaceTrack(sound);
    const { sdp } = await this.peer.createOffer();
    await this.peer.setLocalDescription({ type: "offer", sdp });
    // Not abortable: the server would open the session nevertheless, and its slot would stay taken.
    const asked = this.api.post(SESSIONS, { sdp, type: "offer", initialParameters: { ...initialParameters, audio: sound !== null } });
    this.#answered = asked.then(({ sessionId }) => void (this.id = sessionId), () => {});
    const answer = await asked;
    if (this.#over) return;
    await this.peer.setRemoteDescription({ type: "answer", sdp: answer.sdp });
    await this.#sendCandidates(this.#found.splice(0));
  }

  async #framesSent() {
    for (const report of (await this.peer.getStats()).values()) {
      if (report.type === "outbound-rtp" && report.kind === "video") return report.framesSent;
    }
    return 0;
  }

  /** @param {RTCIceCandidate | null} candidate */
  #trickle(candidate) {
    if (candidate === null || candidate.candidate === "") return;
    if (this.id === null) this.#found.push(candidate);
    else this.#sendCandidates([candidate]).catch(() => {});
  }

  /** @param {RTCIceCandidate[]} candidates */
  async #sendCandidates(candidates) {
    if (candidates.length === 0) return;
    const sent = candidates.map(({ candidate, sdpMid, sdpMLineIndex }) => ({ candidate, sdpMid, sdpMLineIndex }));
    const body = JSON.stringify({ candidates: sent });
    await this.api.request(`${SESSIONS}/${this.id}`, { method: "PATCH", body, type: "application/json" });
  }

  #watchState() {
    clearTimeout(this.#unstable);
    const state = this.peer.connectionState;
    if (state === "connected") this.#settle(true);
    if (state === "failed" || state === "closed") this.#lose();
    if (state === "disconnected") this.#unstable = setTimeout(() => this.#lose(), UNSTABLE_MS);
  }

  #lose() {
    if (this.#over) return;
    this.heard.lost(this.close());
  }
}
