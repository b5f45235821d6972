// The connection to the edge: one WebSocket at a time, replies by their tags, events, and connecting again.

/** Longest wait between two tries to connect, in milliseconds. */
const WAIT_MAX_MS = 15_000;
const WAIT_MIN_MS = 500;
/** A request without an answer for so long means that the connection is dead. */
const ANSWER_MAX_MS = 25_000;
/** Silence after which the edge is asked whether it is there. */
const SILENCE_MS = 20_000;

/** The connection ended before the answer came: nobody can tell what became of the request. */
export class Lost extends Error {}

/** An identifier of version 7, as the 32 digits that are a tag and a message's id at once. */
export function uuidv7() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  let ms = Date.now();
  for (let at = 5; at >= 0; at -= 1) {
    bytes[at] = ms % 256;
    ms = Math.floor(ms / 256);
  }
  bytes[6] = (bytes[6] & 0x0f) | 0x70;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  return [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join('');
}

/**
 * Emits `up` (connected), `down` (not connected; detail: milliseconds until the next try) and `event` (detail: what the edge
 * pushed).
 */
export class Link extends EventTarget {
  #socket = null;
  #waiting = new Map();
  #tags = 0;
  #wait = WAIT_MIN_MS;
  #retry = 0;
  #heard = 0;
  #watchdog = 0;
  #closed = true;

  constructor(url) {
    super();
    this.url = url;
    this.isUp = false;
    addEventListener('online', () => this.hurry());
    addEventListener('offline', () => this.#check(0));
    document.addEventListener('visibilitychange', () => document.hidden || this.#check(1000));
  }

  /** Connects, and again whenever the connection ends, until `close`. */
  open() {
    this.#closed = false;
    if (!this.#socket) this.#connect();
  }

  /** Ends it for good. */
  close() {
    this.#closed = true;
    clearTimeout(this.#retry);
    this.#socket?.close();
  }

  /** Tries now instead of later. */
  hurry() {
    if (this.#closed || this.isUp) return;
    clearTimeout(this.#retry);
    this.#wait = WAIT_MIN_MS;
    if (!this.#socket) this.#connect();
  }

  /** Sends a line; the reply, whatever it says, or `Lost`. */
  request(line, tag = `p${++this.#tags}`) {
    return new Promise((resolve, reject) => {
      if (!this.isUp) {
        reject(new Lost());
        return;
      }
      this.#waiting.set(tag, { resolve, reject, since: Date.now() });
      this.#socket.send(`@${tag} ${line}`);
    });
  }

  #connect() {
    const socket = new WebSocket(this.url);
    this.#socket = socket;
    // One that neither opens nor fails is not waited for.
    const slow = setTimeout(() => this.#end(socket), 10_000);
    socket.onopen = () => {
      clearTimeout(slow);
      this.isUp = true;
      this.#wait = WAIT_MIN_MS;
      this.#heard = Date.now();
      this.#watchdog = setInterval(() => this.#check(SILENCE_MS), 5000);
      this.dispatchEvent(new Event('up'));
    };
    socket.onmessage = (message) => this.#hear(message.data);
    socket.onclose = () => {
      clearTimeout(slow);
      this.#end(socket);
    };
  }

  #hear(data) {
    this.#heard = Date.now();
    const reply = JSON.parse(data);
    if (reply.event) {
      this.dispatchEvent(new CustomEvent('event', { detail: reply }));
      return;
    }
    const waiting = this.#waiting.get(reply.id);
    this.#waiting.delete(reply.id);
    waiting?.resolve(reply);
  }

  /** Finds out whether the edge is still there, if it was silent for long. */
  #check(silence) {
    const socket = this.#socket;
    if (!this.isUp) return;
    const now = Date.now();
    for (const { since } of this.#waiting.values()) {
      if (now - since > ANSWER_MAX_MS) {
        this.#end(socket);
        return;
      }
    }
    if (now - this.#heard < silence) return;
    const late = setTimeout(() => this.#end(socket), 8000);
    this.request('ping').then(() => clearTimeout(late), () => clearTimeout(late));
  }

  #end(socket) {
    if (socket !== this.#socket) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close();
    this.#socket = null;
    this.isUp = false;
    clearInterval(this.#watchdog);
    const waiting = [...this.#waiting.values()];
    this.#waiting.clear();
    for (const { reject } of waiting) reject(new Lost());
    if (this.#closed) return;
    // Not all pages of a server that was restarted come at the same moment.
    const wait = this.#wait * (0.75 + Math.random() / 2);
    this.#wait = Math.min(this.#wait * 2, WAIT_MAX_MS);
    this.#retry = setTimeout(() => this.#connect(), wait);
    this.dispatchEvent(new CustomEvent('down', { detail: wait }));
  }
}
