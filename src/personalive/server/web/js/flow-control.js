/**
 * @file How much may be in flight: frames that were sent and not acknowledged bound the delay through any buffers.
 * `server/websocket/flow_control.py` does the same on the way back, and says why.
 */

const [MIN_BITRATE, START_BITRATE, MAX_BITRATE] = [100_000, 1_000_000, 2_500_000];
const MOST_QUEUE_MS = 100;
const MOST_SOUND_QUEUE_MS = 300;
const LONG_QUEUE_MS = 50;
const REMEMBERED_MS = 20_000;
const RATE_REMEMBERED_MS = 10_000;
const [DECREASE, INCREASE] = [0.75, 1.25];
const [DECREASE_EVERY_MS, INCREASE_EVERY_MS] = [1000, 4000];
const MOST_SKIPPED = 0.1;
const FEWEST_FRAMES = 5;
const MOST_IN_FLIGHT = 64;
const SMOOTHING = 0.1;

/**
 * A frame with the sound before it, and how many bits had arrived by which time when it was sent.
 * @typedef {{sentAt: number, bits: number, arrivedBits: number, arrivedAt: number}} InFlight
 */

/** The frames in flight. Times are in milliseconds, timestamps in microseconds. */
export class FlowControl {
  bitrate = START_BITRATE;
  /** What sending a frame until its acknowledgement takes of late, in milliseconds. @type {number | null} */
  recent = null;
  /** By their timestamps, oldest first. @type {Map<number, InFlight>} */
  #inFlight = new Map();
  #bitsInFlight = 0;
  #arrivedBits = 0;
  #arrivedAt = 0;
  /** Bits per millisecond at which frames arrived; the largest comes first. @type {{at: number, rate: number}[]} */
  #rates = [];
  /** The least of late comes first. @type {{at: number, took: number}[]} */
  #roundTrips = [];
  #sent = 0;
  #skipped = 0;
  #longestQueue = 0;
  /** @type {number | null} */ #adaptedAt = null;
  /** Nothing is sent until nothing is in flight: the next frame then measures the way without queues. */
  #draining = false;
  /** Bits of sound that were sent since the last frame: the acknowledgement of the next one covers them. */
  #soundBits = 0;
  #soundLate = false;
  /** The frame whose acknowledgement says that all sound has arrived. @type {number | null} */
  #soundCoveredBy = null;

  /**
   * Whether a frame may be sent now. If not, it is to be left out before it is encoded; this counts it.
   * @param {number} now
   */
  maySend(now) {
    const open = this.#isOpen(now);
    if (open) this.#sent++;
    else this.#skipped++;
    this.#adapt(now);
    return open;
  }

  /**
   * Whether a packet of sound may be sent now; if not, it is to be left out. It goes before frames: it is left out only
   * where an acknowledgement is very late, and then until no sound is in flight either.
   * @param {number} now
   */
  maySendSound(now) {
    if (this.#roundTrips.length === 0) return false;
    const [oldest] = this.#inFlight.values();
    if (!this.#soundLate && oldest && now - oldest.sentAt > this.#roundTrips[0].took + MOST_SOUND_QUEUE_MS) {
      this.#soundLate = this.#draining = true;
      this.#soundCoveredBy = this.#soundBits > 0 ? null : [...this.#inFlight.keys()].at(-1) ?? null;
    }
    return !this.#soundLate;
  }

  /**
   * A packet of sound was given to the socket.
   * @param {number} size in bytes
   */
  soundSent(size) {
    this.#soundBits += 8 * size;
  }

  /**
   * A frame was given to the socket.
   * @param {number} timestamp
   * @param {number} size in bytes
   * @param {number} now
   */
  sent(timestamp, size, now) {
    if (this.#inFlight.size === 0) this.#arrivedAt = now;
    const bits = 8 * size + this.#soundBits;
    this.#soundBits = 0;
    if (this.#soundLate) this.#soundCoveredBy ??= timestamp;
    const frame = { sentAt: now, bits, arrivedBits: this.#arrivedBits, arrivedAt: this.#arrivedAt };
    this.#inFlight.set(timestamp, frame);
    this.#bitsInFlight += frame.bits;
  }

  /**
   * That frame and those before it have arrived.
   * @param {number} timestamp
   * @param {number} now
   */
  acknowledged(timestamp, now) {
    const frame = this.#inFlight.get(timestamp);
    if (frame === undefined) return;
    for (const [other, { bits }] of this.#inFlight) {
      if (other > timestamp) break;
      this.#inFlight.delete(other);
      this.#bitsInFlight -= bits;
      this.#arrivedBits += bits;
    }
    if (this.#soundCoveredBy !== null && timestamp >= this.#soundCoveredBy) {
      [this.#soundLate, this.#soundCoveredBy] = [false, null];
    }
    this.#arrivedAt = now;
    this.#noteRoundTrip(now - frame.sentAt, now);
    if (now > frame.arrivedAt) this.#noteRate((this.#arrivedBits - frame.arrivedBits) / (now - frame.arrivedAt), now);
  }

  /**
   * @param {number} rate bits per millisecond
   * @param {number} now
   */
  #noteRate(rate, now) {
    const rates = this.#rates;
    while (rates.length > 0 && rates[rates.length - 1].rate <= rate) rates.pop();
    rates.push({ at: now, rate });
    while (rates[0].at < now - RATE_REMEMBERED_MS) rates.shift();
  }

  /**
   * @param {number} took
   * @param {number} now
   */
  #noteRoundTrip(took, now) {
    const trips = this.#roundTrips;
    while (trips.length > 0 && trips[trips.length - 1].took >= took) trips.pop();
    trips.push({ at: now, took });
    while (trips[0].at < now - REMEMBERED_MS) trips.shift();
    this.#longestQueue = Math.max(this.#longestQueue, took - trips[0].took);
    this.recent = this.recent === null ? took : this.recent + SMOOTHING * (took - this.recent);
  }

  /** @param {number} now */
  #isOpen(now) {
    if (this.#inFlight.size === 0) {
      this.#draining = false;
      return true;
    }
    const [oldest] = this.#inFlight.values();
    const rate = Math.max(this.#rates[0]?.rate ?? 0, MIN_BITRATE / 1000);
    const most = this.#roundTrips.length === 0 ? 0 : this.#roundTrips[0].took + MOST_QUEUE_MS;
    const full = this.#inFlight.size >= MOST_IN_FLIGHT || this.#bitsInFlight + this.#soundBits > most * rate;
    if (full || now - oldest.sentAt > most) this.#draining = true;
    return !this.#draining;
  }

  /** @param {number} now */
  #adapt(now) {
    this.#adaptedAt ??= now;
    const waited = now - this.#adaptedAt;
    const count = this.#sent + this.#skipped;
    if (waited < DECREASE_EVERY_MS || count < FEWEST_FRAMES) return;
    if (this.#skipped > MOST_SKIPPED * count && this.bitrate > MIN_BITRATE) {
      this.#set(Math.max(MIN_BITRATE, Math.floor(this.bitrate * DECREASE)), now);
    } else if (waited >= INCREASE_EVERY_MS) {
      const grows = this.#skipped === 0 && this.#longestQueue < LONG_QUEUE_MS;
      this.#set(grows ? Math.min(MAX_BITRATE, Math.floor(this.bitrate * INCREASE)) : this.bitrate, now);
    }
  }

  /**
   * @param {number} bitrate
   * @param {number} now
   */
  #set(bitrate, now) {
    this.bitrate = bitrate;
    this.#adaptedAt = now;
    this.#sent = this.#skipped = this.#longestQueue = 0;
  }
}
