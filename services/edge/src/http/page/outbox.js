// What was said and is not answered yet. It waits here over as many connections as it takes, always under the same id, so
// that nothing is lost and nothing doubled; a reload of the page keeps it (sessionStorage).
//
// One message is on its way at a time, which keeps their order.

import { Lost, uuidv7 } from './net.js';
import { errorText } from './i18n.js';

/** How often the edge is asked again that cannot store for now. */
const TRIES_MAX = 5;
/** Longest text, in bytes: what fits into a line beside everything else. */
export const TEXT_BYTES_MAX = 60 * 1024;

/** A text as the one line that a message is. */
export function oneLine(text) {
  // Control characters are no part of a message; a line end parts two words.
  return text.replace(/[\u0000-\u001f\u007f\u0085\u2028\u2029]+/g, ' ').trim();
}

export class Outbox {
  #isSending = false;
  #pause = 0;

  /** `lineOf(key, text, session)` is the command that says `text` in a conversation. */
  constructor(session, store, lineOf) {
    this.session = session;
    this.store = store;
    this.lineOf = lineOf;
    this.key = `antar.outbox.${store.me.address}`;
    this.entries = [];
    this.#restore();
  }

  #restore() {
    let kept = [];
    try {
      kept = JSON.parse(sessionStorage.getItem(this.key)) ?? [];
    } catch {
      // Nothing was kept that can be read.
    }
    for (const { key, id, text, ts, state, reason, wasSent } of kept) {
      const item = this.store.say(key, { id, text, ts, state, reason });
      this.entries.push({ talk: this.store.talk(key), item, tries: 0, wasSent });
    }
  }

  #save() {
    const kept = this.entries.map(({ talk, item, wasSent }) => (
      { key: talk.key, id: item.id, text: item.text, ts: item.ts, state: item.state, reason: item.reason, wasSent }));
    try {
      sessionStorage.setItem(this.key, JSON.stringify(kept));
    } catch {
      // Without room it is kept in memory alone.
    }
  }

  /** Says something in a conversation. */
  say(talk, text) {
    const item = this.store.say(talk.key, { id: uuidv7(), text });
    this.entries.push({ talk, item, tries: 0, wasSent: false });
    this.#save();
    this.flush();
  }

  /** The last message of a conversation that was never sent, taken out to be edited; null if there is none. */
  takeBack(talk) {
    const at = this.entries.findLastIndex((entry) => entry.talk === talk && !entry.wasSent);
    if (at < 0) return null;
    const [{ item }] = this.entries.splice(at, 1);
    this.store.drop(talk, item);
    this.#save();
    return item.text;
  }

  /** Sends one that failed again. */
  retry(talk, item) {
    const entry = this.entries.find((one) => one.item === item);
    if (entry) {
      Object.assign(entry, { tries: 0 });
      item.reason = '';
      this.store.reached(talk, item, 'queued');
      this.#save();
      this.flush();
      return;
    }
    // The realm has stored it, and could not deliver it: it is done with that id.
    this.store.drop(talk, item);
    this.say(talk, item.text);
  }

  /** Forgets one that failed. */
  discard(talk, item) {
    this.entries = this.entries.filter((entry) => entry.item !== item);
    this.store.drop(talk, item);
    this.#save();
  }

  /** Sends what waits, as far as the connection goes. */
  async flush() {
    if (this.#isSending) return;
    this.#isSending = true;
    clearTimeout(this.#pause);
    // What history has shown is stored, though the answer was lost.
    this.entries = this.entries.filter(({ item }) => item.isLocal);
    this.#save();
    try {
      for (;;) {
        const entry = this.entries.find(({ item }) => item.state === 'queued');
        if (!entry || !this.session.isReady || !await this.#send(entry)) break;
      }
    } catch (error) {
      if (!(error instanceof Lost)) throw error;
    } finally {
      this.#isSending = false;
    }
  }

  /** Whether to go on with the next one. */
  async #send(entry) {
    const { talk, item } = entry;
    entry.wasSent = true;
    this.#save();
    const reply = await this.session.link.request(this.lineOf(talk, item.text, this.session), item.id);
    if (reply.status === 'OK') {
      this.#take(entry);
      if (item.isLocal) item.isLocal = false;
      this.store.reached(talk, item, 'stored', reply.unknown ? errorText({ code: 'no-such-user' }) : '');
      this.session.look(talk);
      return true;
    }
    // It was refused, or nobody can tell and the same id is safe to send again: only the first may be edited.
    entry.wasSent = reply.code === 'unavailable' && reply.stored !== false;
    if (reply.code === 'not-authorized') {
      this.#save();
      this.session.ended();
      return false;
    }
    const wait = this.#wait(reply, entry);
    if (wait) {
      item.reason = errorText(reply);
      this.store.touched(talk);
      this.#save();
      this.#pause = setTimeout(() => this.flush(), wait);
      return false;
    }
    this.store.reached(talk, item, 'failed', errorText(reply));
    this.#save();
    return true;
  }

  /** How long to wait before the same is tried again; 0 if that is of no use. */
  #wait(reply, entry) {
    if (reply.code === 'rate-limited' || reply.code === 'slow-down') return (reply.retry_after_s ?? 2) * 1000;
    entry.tries += 1;
    return reply.code === 'unavailable' && entry.tries < TRIES_MAX ? 500 * 2 ** entry.tries : 0;
  }

  #take(entry) {
    this.entries = this.entries.filter((other) => other !== entry);
    this.#save();
  }

  /** Forgets everything: the session was ended on purpose. */
  clear() {
    this.entries = [];
    sessionStorage.removeItem(this.key);
  }

  /** How many wait. */
  get waiting() {
    return this.entries.filter(({ item }) => item.state === 'queued').length;
  }
}

/** The command that says `text` in a conversation. */
export function lineOf(talk, text, session) {
  const { token, me } = session;
  const own = `@${me.realm}`;
  if (talk.kind === 'group') return `sendgroup ${token} ${session.groupName(talk.key)} ${text}`;
  if (talk.kind === 'list') {
    const names = talk.key.split(',');
    const realm = session.store.realmOf(talk);
    if (!realm) return `sendgroup ${token} ${names.map((name) => name.slice(0, -own.length)).join(',')} ${text}`;
    return `sendgrouprealm ${token} ${realm} ${names.join(',')} ${text}`;
  }
  return `send ${token} ${session.store.short(talk.key)} ${text}`;
}

