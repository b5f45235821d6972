// What this page knows: conversations, their messages in the order of the realm, and what of them is unread.
//
// Unread is this page's own: what was pushed here and not looked at, kept by address in localStorage. What the server counts
// as read is another thing: that is what was delivered to this page.

import { mentions } from './format.js';

/** Messages kept of a conversation; older ones are loaded again when they are wanted. */
const ITEMS_MAX = 3000;
const UNREAD_MAX = 999;
/** How far a message of one's own has come, the least first. */
export const RANKS = { queued: 0, stored: 1, delivered: 2, read: 3, failed: 4 };

/** An id without its dashes: the form of tags. */
export function plain(id) {
  return id.replaceAll('-', '').toLowerCase();
}

/** An id as the protocol writes it. */
export function dashed(id) {
  return id.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
}

/**
 * Emits `list` (conversations, their order or counts have changed), `items` (detail: the conversation whose messages have) and
 * `heard` (detail: a conversation and a message that came in now).
 */
export class Store extends EventTarget {
  #saving = 0;

  constructor(me) {
    super();
    this.me = me;
    this.talks = new Map();
    this.realms = [];
    this.people = new Map();
    this.online = new Map();
    this.current = null;
    /** Whether somebody looks at the end of the current conversation. */
    this.isSeen = () => false;
    this.key = `antar.unread.${me.address}`;
    try {
      this.kept = JSON.parse(localStorage.getItem(this.key)) ?? {};
    } catch {
      this.kept = {};
    }
    this.kept = { seen: '', unread: {}, ...this.kept };
    for (const key of Object.keys(this.kept.unread)) this.talk(key);
    addEventListener('pagehide', () => this.#save());
  }

  /** An address without the realm if that is our own. */
  short(address) {
    const own = `@${this.me.realm}`;
    return address.split(',').map((one) => (one.endsWith(own) && one !== own ? one.slice(0, -own.length) : one)).join(', ');
  }

  /** The realm of a conversation with others than our own; empty for ours. */
  realmOf(talk) {
    const realm = talk.key.slice(talk.key.lastIndexOf('@') + 1);
    return realm === this.me.realm ? '' : realm;
  }

  /** The conversation at an address (`user@realm`, several of them with commas, `#group@realm`, `@realm`), begun if need be. */
  talk(key) {
    let talk = this.talks.get(key);
    if (!talk) {
      const kind = key.startsWith('#') ? 'group' : key.startsWith('@') ? 'realm' : key.includes(',') ? 'list' : 'user';
      const kept = this.kept.unread[key] ?? {};
      talk = {
        key, kind, items: [], byId: new Map(), hasOlder: true, group: null, last: 0,
        unread: new Set(kept.unread), mentions: new Set(kept.mentions), marker: kept.unread?.[0] ?? null,
      };
      this.talks.set(key, talk);
      this.#changed('list');
    }
    return talk;
  }

  /** What a conversation is called. */
  name(talk) {
    return this.short(talk.key);
  }

  /** Where a message belongs. */
  keyOf(message) {
    if (message.group || message.to.startsWith('#')) return message.to;
    return message.from === this.me.address ? message.to : message.from;
  }

  #item(message) {
    const mine = message.from === this.me.address;
    // People of other realms are known by what they wrote.
    if (!mine && message.kind !== 'notice') this.people.set(message.from, message.msg_from);
    return {
      id: plain(message.id), ts: Date.parse(message.ts) || Date.now(), from: message.from, name: message.msg_from,
      text: message.msg, mine, file: message.file ?? null, notice: message.kind === 'notice', state: mine ? 'stored' : '',
      reason: '',
    };
  }

  /** A message that was pushed. */
  pushed(message) {
    const talk = this.talk(this.keyOf(message));
    const item = this.#item(message);
    const known = talk.byId.get(item.id);
    if (!known) this.#append(talk, item);
    else {
      this.#confirm(talk, known, item);
      if (talk.kind === 'group' && item.mine) this.#place(talk, known);
    }
    if (item.notice) this.#notice(message);
    if (!item.mine && !(known && !talk.unread.has(item.id) && known.counted)) {
      (known ?? item).counted = true;
      this.#count(talk, item);
      if (!known) this.dispatchEvent(new CustomEvent('heard', { detail: { talk, item } }));
    }
    this.#saw(message.ts);
  }

  /** A page of history: in the order of the realm, the newest last. What came after `since`, if that is known, is unread. */
  page(messages, { key = null, more = false, since = '', isOlder = false } = {}) {
    const byTalk = new Map();
    for (const message of messages) {
      const at = key ?? this.keyOf(message);
      if (!byTalk.has(at)) byTalk.set(at, []);
      byTalk.get(at).push(message);
    }
    for (const [at, page] of byTalk) {
      const talk = this.talk(at);
      const items = page.map((message) => {
        const item = this.#item(message);
        const known = talk.byId.get(item.id);
        if (known) this.#confirm(talk, known, item);
        if (item.notice) this.#notice(message);
        if (!known && !item.mine && since && message.ts > since) {
          item.counted = true;
          this.#count(talk, item);
        }
        return known ?? item;
      });
      this.#merge(talk, items);
    }
    if (key) this.talk(key).hasOlder = more;
    if (!isOlder) for (const message of messages) this.#saw(message.ts);
    this.#changed('list');
  }

  /** What the realm says stands as it says; what it does not know yet comes behind. */
  #merge(talk, items) {
    const fresh = new Set(items);
    const from = items[0]?.ts ?? 0;
    const rest = talk.items.filter((item) => !fresh.has(item));
    const isBefore = (item) => item.ts < from && item.state !== 'queued' && !item.isLocal;
    talk.items = [...rest.filter(isBefore), ...items, ...rest.filter((item) => !isBefore(item))];
    for (const item of items) talk.byId.set(item.id, item);
    talk.last = Math.max(talk.last, talk.items.at(-1)?.ts ?? 0);
    this.#changed('items', talk);
  }

  /** Our own message has come back from the realm. */
  #confirm(talk, known, item) {
    if (!known.isLocal) return;
    // Also one that had failed: its answer was lost, and not the message.
    this.reached(talk, known, 'stored');
    Object.assign(known, { ts: item.ts, isLocal: false, file: item.file ?? known.file, text: item.text });
    this.#changed('items', talk);
  }

  /** Our own message has got its place in a group: behind all that was pushed before it. */
  #place(talk, item) {
    const at = talk.items.indexOf(item);
    const behind = talk.items.slice(at + 1);
    const end = behind.findIndex((other) => other.isLocal);
    talk.items.splice(at, 1);
    talk.items.splice(end < 0 ? talk.items.length : at + end, 0, item);
    this.#changed('items', talk);
  }

  #append(talk, item) {
    talk.items.push(item);
    talk.byId.set(item.id, item);
    talk.last = Math.max(talk.last, item.ts);
    // Not while somebody reads what would go.
    if (talk.items.length > ITEMS_MAX && (talk !== this.current || this.isSeen())) {
      for (const gone of talk.items.splice(0, ITEMS_MAX / 3)) talk.byId.delete(gone.id);
      talk.hasOlder = true;
    }
    this.#changed('items', talk);
    this.#changed('list');
  }

  /** A message of our own that is not stored yet. */
  say(key, { id, text, ts = Date.now(), state = 'queued', upload = null, reason = '' }) {
    const talk = this.talk(key);
    const item = {
      id, ts, from: this.me.address, name: this.me.name, text, mine: true, file: null, notice: false, state, reason,
      isLocal: true, upload,
    };
    this.#append(talk, item);
    this.seen(talk);
    return item;
  }

  /** Takes a message out that was not stored. */
  drop(talk, item) {
    talk.items = talk.items.filter((other) => other !== item);
    talk.byId.delete(item.id);
    this.#changed('items', talk);
    this.#changed('list');
  }

  /** A message of our own has come further. It goes back only to be sent again. */
  reached(talk, item, state, reason = '') {
    const isLater = RANKS[state] > RANKS[item.state] || (item.state === 'failed' && RANKS[state] >= RANKS.delivered);
    if (!isLater && !(item.isLocal && state !== item.state)) return;
    item.state = state;
    item.reason = reason;
    this.#changed('items', talk);
    this.#changed('list');
  }

  /** Something else about an item is to be shown. */
  touched(talk) {
    this.#changed('items', talk);
  }

  /** A realm's word about a message that it did not take. */
  #notice(message) {
    if (!message.about) return;
    const found = this.find(message.about);
    if (found && found.talk.kind !== 'list') this.reached(found.talk, found.item, 'failed', message.msg);
  }

  /** The message with an id, and its conversation. */
  find(id) {
    const key = plain(id);
    for (const talk of this.talks.values()) {
      const item = talk.byId.get(key);
      if (item) return { talk, item };
    }
    return null;
  }

  #count(talk, item) {
    if (talk === this.current && this.isSeen()) return;
    if (talk.unread.size === 0) talk.marker = item.id;
    if (talk.unread.size < UNREAD_MAX) talk.unread.add(item.id);
    if (!item.notice && mentions(item.text, this.me)) talk.mentions.add(item.id);
    this.#changed('list');
  }

  /** Somebody has looked at the end of a conversation. */
  seen(talk) {
    if (talk.unread.size === 0 && talk.mentions.size === 0) return;
    talk.unread.clear();
    talk.mentions.clear();
    this.#changed('list');
  }

  /** How many messages are unread in all conversations. */
  get unread() {
    let sum = 0;
    for (const talk of this.talks.values()) sum += talk.unread.size;
    return sum;
  }

  /** All conversations, the latest first. */
  sorted() {
    return [...this.talks.values()].sort((one, other) => other.last - one.last || one.key.localeCompare(other.key));
  }

  /** The state of the lane to a realm, if it was added. */
  lane(realm) {
    return this.realms.find((one) => one.realm === realm);
  }

  #saw(ts) {
    if (ts > this.kept.seen) this.kept.seen = ts;
    this.#later();
  }

  #changed(what, talk) {
    this.dispatchEvent(new CustomEvent(what, { detail: talk }));
    if (what === 'list') this.#later();
  }

  /** Shows that something beside messages has changed: people, realms. */
  refreshed() {
    this.#changed('list');
  }

  #later() {
    this.#saving ||= setTimeout(() => this.#save(), 500);
  }

  #save() {
    clearTimeout(this.#saving);
    this.#saving = 0;
    this.kept.unread = {};
    for (const talk of this.talks.values()) {
      if (talk.unread.size === 0) continue;
      this.kept.unread[talk.key] = { unread: [...talk.unread], mentions: [...talk.mentions] };
    }
    try {
      localStorage.setItem(this.key, JSON.stringify(this.kept));
    } catch {
      // Without room the counts are those of this visit.
    }
  }
}
