/** @file Runs where browsers process sound: hands it to the page in blocks of 20 ms. */

const BLOCK = 960;
const CHANNELS = 2;

class SoundBlocks extends AudioWorkletProcessor {
  #block = new Float32Array(CHANNELS * BLOCK);
  #filled = 0;

  /** @param {Float32Array[][]} inputs */
  process([input]) {
    const length = input[0]?.length ?? 128; // nothing comes from a source that is not there yet
    for (let taken = 0; taken < length; ) {
      const count = Math.min(length - taken, BLOCK - this.#filled);
      for (const [channel, samples] of input.entries()) {
        this.#block.set(samples.subarray(taken, taken + count), channel * BLOCK + this.#filled);
      }
      taken += count;
      this.#filled += count;
      if (this.#filled === BLOCK) this.#post(currentFrame + taken - BLOCK);
    }
    return true;
  }

  /** @param {number} begin the number of the first sample */
  #post(begin) {
    this.port.postMessage({ begin, samples: this.#block }, [this.#block.buffer]);
    this.#block = new Float32Array(CHANNELS * BLOCK);
    this.#filled = 0;
  }
}

registerProcessor("sound-blocks", SoundBlocks);
