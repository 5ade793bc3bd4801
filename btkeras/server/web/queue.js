// A queue with few requests at a time, which waits when the server asks to.

const TRIES = 40;

export class Queue {
  /**
   * @param {number} atOnce
   * @param {() => Promise<boolean>} signIn Asks for a token; whether there is one now.
   */
  constructor(atOnce, signIn) {
    this.atOnce = atOnce;
    this.signIn = signIn;
    this.waiting = [];
    this.running = 0;
    this.until = 0;
    this.timer = 0;
    this.asking = null;
  }

  /**
   * @param {{run: () => Promise<void>, busy: () => void, failed: (error: Error) => void, gone: () => boolean}} job
   *   `run` sends the request; `busy` is called when it has to wait for the server; `gone` says that nobody wants it any more.
   * @param {boolean} first Before all others: it is shown.
   */
  add(job, first = false) {
    if (first) this.waiting.unshift(job);
    else this.waiting.push(job);
    this.pump();
  }

  pump() {
    clearTimeout(this.timer);
    const rest = this.until - Date.now();
    if (rest > 0) {
      this.timer = setTimeout(() => this.pump(), rest);
      return;
    }
    while (!this.asking && this.running < this.atOnce && this.waiting.length) {
      const job = this.waiting.shift();
      if (!job.gone()) this.start(job);
    }
  }

  async start(job) {
    this.running += 1;
    try {
      await job.run();
    } catch (error) {
      await this.failed(job, error);
    } finally {
      this.running -= 1;
      this.pump();
    }
  }

  async failed(job, error) {
    if (job.gone() || error.name === "AbortError") return;
    job.tries = (job.tries ?? 0) + 1;
    if (error.later && job.tries < TRIES) {
      this.until = Math.max(this.until, Date.now() + 1000 * error.seconds);
      job.busy();
      this.waiting.unshift(job);
    } else if (error.status === 401 && (await this.askOnce())) {
      this.waiting.unshift(job);
    } else {
      job.failed(error);
    }
  }

  // Two requests that fail together ask once.
  async askOnce() {
    this.asking ??= this.signIn();
    try {
      return await this.asking;
    } finally {
      this.asking = null;
    }
  }
}
