/**
 * @file A visit's session with the server, through lost connections and restarts: it has one phase at a time, and
 * continues automatically as long as trying again may help.
 */

import { ApiError } from "./api.js";
import { DriverError } from "./drivers.js";
import { ensureLoaded } from "./loading.js";
import { say } from "./strings.js";
import { aborted, isAbort, sleep } from "./time.js";

/** @typedef {import("./transports.js").AnyCall} AnyCall */

const WAITS_S = [1, 2, 4, 8, 15];
/** Frames of one driver may still be on their way when frames of the next one are sent. */
const SWAP_MS = 300;
/** How long to wait for the server to end the previous session. */
const LEAVING_MS = 10_000;
/** Failed attempts after which a person must decide, if the server said that it would be back soon. */
const MOST_TRIES = 12;

/**
 * idle → starting → live ⇄ retrying, busy; any → idle by `stop`, or by an error that trying again does not fix.
 * @typedef {"idle" | "starting" | "live" | "retrying" | "busy"} Phase
 */

/**
 * @typedef {object} Plan
 * @property {import("./loading.js").Wanted & {name: string}} pipeline
 * @property {import("./portraits.js").Portrait} portrait
 * @property {import("./drivers.js").Driver} driver
 * @property {Record<string, unknown>} parameters run parameters that differ from their defaults
 */

/**
 * Reports by events: `phase`, `step` (progress of starting: {text, progress}), `wait` (seconds until the next try),
 * `stream` (the result's MediaStream), `message` (from the server), `driver` (it has just been opened), `fallback` (WebRTC
 * does not get through, and a WebSocket is tried), `error` (a
 * sentence; the session is idle then; `cause` is the ApiError or DriverError).
 */
export class Session extends EventTarget {
  /** @type {Phase} */ phase = "idle";
  paused = false;
  /** @type {Plan | null} */ plan = null;
  /** Why it is tried again, in the server's words; null where the connection was lost. @type {string | null} */
  why = null;
  /** @type {AnyCall | null} */ #call = null;
  /** @type {MediaStreamTrack | null} */ #sound = null;
  /** @type {AbortController | null} */ #work = null;
  /** Resolves when the server has ended the previous session. @type {Promise<unknown>} */
  #leaving = Promise.resolve();
  /** Counts swaps of the driver. */
  #swap = 0;
  /** @type {(() => void) | null} */ #hurry = null;
  /** What the server asked to wait before the next try, in seconds. @type {number | null} */
  #retryAfter = null;

  /**
   * @param {import("./api.js").Api} api
   * @param {import("./transports.js").Transports} transports
   */
  constructor(api, transports) {
    super();
    this.api = api;
    this.transports = transports;
  }

  /**
   * Listen to one kind of event.
   * @param {"phase" | "step" | "wait" | "driver" | "fallback" | "stream" | "message" | "error"} type
   * @param {(detail: any) => void} hear
   */
  on(type, hear) {
    this.addEventListener(type, (event) => hear(/** @type {CustomEvent} */ (event).detail));
  }

  /** Whether there is one, or is to be. */
  get active() {
    return this.phase !== "idle";
  }

  /**
 * Start the session. Events report the outcome.
   * @param {Plan} plan
   */
  start(plan) {
    this.plan = plan;
    this.paused = false;
    this.why = null;
    this.#run("starting");
  }

  /** The server's id of what streams now, or null. */
  get id() {
    return this.#call?.id ?? null;
  }

  /** End it, and give the camera back. */
  stop() {
    this.#work?.abort();
    this.#hangUp();
    this.plan?.driver.pause(false);
    this.#enter("idle");
  }

  /** Do not wait for the next try. */
  tryNow() {
    this.#hurry?.();
  }

  /** @param {boolean} paused */
  setPaused(paused) {
    this.paused = paused;
    this.plan?.driver.pause(paused);
    this.#call?.send({ paused });
  }

  /** Forget the driver's first pose. */
  reset() {
    this.#call?.send({ reset_cache: true });
  }

  /**
   * Animate another portrait from now on, or from the next connection on. Throws `ApiError`.
   * @param {import("./portraits.js").Portrait} portrait
   */
  async usePortrait(portrait) {
    if (this.plan && this.phase !== "live") {
      this.plan.portrait = portrait;
      return;
    }
    const id = await portrait.reference(this.api);
    if (!this.plan) return;
    this.plan.portrait = portrait;
    this.#call?.send({ reference_id: id });
  }

  /**
   * Follow another driver from now on. Its first frame counts as the first: the server forgets the driver before, and
   * takes no frames until none of that one's can come any more.
   * @param {import("./drivers.js").Driver} driver
   */
  async useDriver(driver) {
    if (!this.plan) return;
    this.plan.driver = driver;
    driver.pause(this.paused);
    const call = this.#call;
    if (!call || !driver.stream) return;
    const swap = ++this.#swap;
    call.send({ paused: true });
    await call.drive(driver.stream);
    if (!this.paused) await call.frameSent();
    await sleep(SWAP_MS);
    if (swap === this.#swap) call.send({ paused: this.paused, reset_cache: true });
  }

  /**
   * @param {Record<string, unknown>} changed run parameters
   * @param {Record<string, unknown>} all that differ from their defaults, for a later connection
   */
  setParameters(changed, all) {
    if (this.plan) this.plan.parameters = all;
    this.#call?.send(changed);
  }

  /**
   * Send this sound from now on, now and in later connections, or none.
   * @param {MediaStreamTrack | null} track
   */
  async useSound(track) {
    this.#sound = track;
    await this.#call?.useSound(track);
  }

  /** Whether the connection carries sound; true while there is none. */
  get carriesSound() {
    return this.#call?.carriesSound ?? true;
  }

  /** Seconds that a frame spends on the network and in this browser. */
  async delay() {
    return this.#call?.delay() ?? 0;
  }

  /** @param {Phase} first */
  async #run(first) {
    this.#work?.abort();
    const work = (this.#work = new AbortController());
    this.#retryAfter = null;
    this.#enter(first);
    let tries = 0;
    for (let attempt = first === "starting" ? 0 : 1; ; attempt++) {
      try {
        if (attempt > 0) await this.#wait(attempt, work.signal);
        await this.#connect(work.signal, first === "retrying");
        return;
      } catch (error) {
        if (work.signal.aborted || isAbort(error)) return;
        if (error instanceof DriverError) return this.#fail(error.message, error);
        const refused = error instanceof ApiError ? error : new ApiError(String(error), 400);
        const starts = await this.#isStarting(refused, work.signal);
        if (work.signal.aborted) return;
        const next = this.#after(refused, starts, first);
        if (next === null) return this.#fail(refused.message, refused);
        if (this.why !== null && ++tries >= MOST_TRIES) return this.#fail(say.gaveUp(this.why), refused);
        this.#retryAfter = refused.retryAfter;
        this.#enter(next);
      }
    }
  }

  /**
   * Whether the server refuses because its pipeline is being loaded: that looks as if all its places were taken, or
   * as if nothing was loaded.
   * @param {ApiError} refused
   * @param {AbortSignal} signal
   * @returns {Promise<boolean>}
   */
  async #isStarting(refused, signal) {
    if (refused.status !== 503 && refused.status !== 409) return false;
    return this.api.get("/api/v1/pipeline/status", { signal }).then(
      ({ status }) => status === "loading",
      () => false,
    );
  }

  /**
   * @param {ApiError} refused
   * @param {boolean} starts whether the server's pipeline is being loaded
   * @param {Phase} first
   * @returns {Phase | null} the phase in which to wait for the next try; null to give up
   */
  #after(refused, starts, first) {
    if (starts) {
      this.why ??= refused.message;
      return "retrying";
    }
    const busy = refused.status === 503 && refused.retryAfter !== null;
    // What the server said is not the reason any more.
    if (busy || refused.status === 0) this.why = null;
    if (busy) return "busy";
    return first === "retrying" && refused.passing ? "retrying" : null;
  }

  /**
   * @param {number} attempt
   * @param {AbortSignal} signal
   */
  async #wait(attempt, signal) {
    const step = WAITS_S[Math.min(attempt, WAITS_S.length) - 1];
    let left = this.#retryAfter ?? step;
    let hurried = false;
    this.#hurry = () => (hurried = true);
    const pieces = 4;
    for (; left > 0 && !hurried; left--) {
      this.#tell("wait", left);
      for (let piece = 0; piece < pieces && !hurried; piece++) await sleep(1000 / pieces, signal);
    }
    this.#hurry = null;
    this.#tell("wait", 0);
  }

  /**
   * @param {AbortSignal} signal
   * @param {boolean} again
   */
  async #connect(signal, again) {
    const plan = /** @type {Plan} */ (this.plan);
    const { pipeline } = plan;
    if (again) await this.#requireOurs(pipeline, signal);
    await ensureLoaded(this.api, pipeline, (status) => {
      const ours = status.pipeline_id === pipeline.id;
      this.#step(ours ? say.loading(pipeline.name) : say.waitingForLoad, status.progress);
    }, signal);
    await this.#openDriver(plan.driver, signal);
    this.#step(say.preparing, null);
    await plan.portrait.recheck(this.api, signal);
    const reference_id = await plan.portrait.reference(this.api, signal);
    this.#step(say.connecting, null);
    await Promise.race([this.#leaving, sleep(LEAVING_MS, signal)]);
    signal.throwIfAborted();
    const call = await this.#open(plan, reference_id, signal);
    if (signal.aborted) return;
    this.transports.show(call);
    if (this.paused) call.send({ paused: true });
    this.why = null;
    this.#enter("live");
  }

  /**
   * @param {Plan} plan
   * @param {string} reference_id
   * @param {AbortSignal} signal
   */
  async #open(plan, reference_id, signal) {
    /** @type {AnyCall | null} */
    let last = null;
    try {
      return await this.transports.open({
        driver: /** @type {MediaStream} */ (plan.driver.stream),
        sound: this.#sound,
        parameters: { ...plan.parameters, reference_id },
        heard: this.#heard(),
        onCall: (call) => (this.#call = last = call),
        onFallback: () => this.#tell("fallback", null),
        signal,
      });
    } catch (error) {
      if (last !== null && this.#call === last) this.#hangUp();
      throw error;
    }
  }

  /**
   * A camera that was given back is asked for again. Throws `DriverError`.
   * @param {import("./drivers.js").Driver} driver
   * @param {AbortSignal} signal
   */
  async #openDriver(driver, signal) {
    if (driver.stream === null) {
      this.#step(say.openingCamera, null);
      // The browser may ask, and nobody has to answer.
      await Promise.race([driver.open(), aborted(signal)]);
    }
    this.#tell("driver", driver);
  }

  /**
   * Somebody may have loaded something else meanwhile: taking the server from them is not ours. And what the server
   * itself gave up to start is not to be started once more without a person.
   * @param {import("./loading.js").Wanted} pipeline
   * @param {AbortSignal} signal
   */
  async #requireOurs(pipeline, signal) {
    const status = await this.api.get("/api/v1/pipeline/status", { signal });
    const other = status.pipeline_id !== null && status.pipeline_id !== pipeline.id;
    if (other && status.status !== "error") throw new ApiError(say.replaced, 409);
    if (!other && status.status === "error") throw new ApiError(status.error ?? "", 409);
  }

  /** @returns {import("./call.js").Heard} */
  #heard() {
    return {
      stream: (stream) => this.#tell("stream", stream),
      message: (message) => {
        if (message.type === "stream_stopped") this.#ended(message.error_message ?? null, message.retry === true);
        else this.#tell("message", message);
      },
      lost: (left) => {
        this.#call = null;
        this.#leaving = left;
        this.why = null;
        if (this.active) this.#run("retrying");
      },
    };
  }

  /**
   * The server has ended the session: for a passing reason that it says, because it stops, and then it may come
   * back, or for good.
   * @param {string | null} why
   * @param {boolean} retry whether the server says that a new offer will work soon
   */
  async #ended(why, retry) {
    this.#hangUp();
    this.#work?.abort();
    this.why = retry ? why : null;
    if (retry) return this.#run("retrying");
    const work = (this.#work = new AbortController());
    const stays = await this.api.get("/health/ready", { signal: work.signal }).then(
      () => true,
      (error) => error instanceof ApiError && !error.passing,
    );
    if (work.signal.aborted) return;
    if (stays && why !== null) this.#fail(say.ended(why), null);
    else this.#run("retrying");
  }

  #hangUp() {
    const call = this.#call;
    this.#call = null;
    if (call) this.#leaving = call.close();
  }

  /**
   * @param {string} sentence
   * @param {ApiError | DriverError | null} cause
   */
  #fail(sentence, cause) {
    this.#hangUp();
    this.#enter("idle");
    this.dispatchEvent(new CustomEvent("error", { detail: { sentence, cause } }));
  }

  /**
   * @param {string} text
   * @param {number | null} progress 0…1
   */
  #step(text, progress) {
    this.#tell("step", { text, progress });
  }

  /** @param {Phase} phase */
  #enter(phase) {
    this.phase = phase;
    if (phase !== "live") this.transports.show(null);
    if (phase === "idle") this.plan?.driver.release();
    this.#tell("phase", phase);
  }

  /**
   * @param {string} type
   * @param {unknown} detail
   */
  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
