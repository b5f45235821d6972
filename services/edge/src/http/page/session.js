// Somebody who is logged in: what is asked of the edge, when, and what comes of it.
//
// After every connect the same is done, the first one included: who am I, what was said meanwhile, watch, and what waits here
// is sent. What came twice is recognised by its id, so nothing is lost and nothing doubled.

import { Link, Lost } from './net.js';
import { RANKS, Store, dashed } from './store.js';
import { Outbox, lineOf } from './outbox.js';
import { errorText } from './i18n.js';

const KEY = 'antar.session';
const PAGE = 100;
/** Pages that are fetched to close a gap in what was said. */
const GAP_PAGES_MAX = 20;
/** How often is asked how far messages of one's own have come, in milliseconds: at first, and if nothing happens. */
const LOOK_MIN_MS = 700;
const LOOK_MAX_MS = 12_000;
/** How often is asked how lanes and groups are, in milliseconds, and how often while there is nothing to see of them. */
const LANES_MS = 2000;
const LANES_IDLE_MS = 15_000;
/** People who are asked about at a time. */
const PRESENCE_AT_ONCE = 30;
/** Messages that are asked for at a time. */
const LOOK_AT_ONCE = 12;

/** A connection that was lost is shown elsewhere; what was asked for is asked again after the next connect. */
function lost(error) {
  if (!(error instanceof Lost)) throw error;
}

/** The token of this tab, if it has logged in. */
export function keptToken() {
  return sessionStorage.getItem(KEY);
}

export function keepToken(token) {
  if (token) sessionStorage.setItem(KEY, token);
  else sessionStorage.removeItem(KEY);
}

/** Where the edge of this page takes WebSocket. */
export function link() {
  const url = new URL('ws', location.href);
  url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
  return new Link(url.href);
}

/**
 * Emits `state` (connected or not; detail: milliseconds until the next try), `ready` (all is known), `presence` (somebody came or
 * went) and `ended` (log in again); what the store emits is the store's.
 */
export class Session extends EventTarget {
  #lookTimer = 0;
  #lookWait = LOOK_MIN_MS;
  #timers = [];
  #lanesAt = 0;
  #abort = new AbortController();

  constructor(connection, token, me, limits) {
    super();
    this.link = connection;
    this.token = token;
    this.me = me;
    this.limits = limits;
    this.isReady = false;
    this.isSynced = false;
    this.store = new Store(me);
    this.outbox = new Outbox(this, this.store, lineOf);
    const { signal } = this.#abort;
    connection.addEventListener('up', () => this.#up(), { signal });
    connection.addEventListener('down', ({ detail }) => this.#down(detail), { signal });
    connection.addEventListener('event', ({ detail }) => this.#event(detail), { signal });
    document.addEventListener('visibilitychange', () => document.hidden || this.look(this.store.current), { signal });
    this.#timers.push(setInterval(() => this.#lanes(), LANES_MS), setInterval(() => this.#presence(), 20_000));
  }

  /** Begins, on a connection that is up. */
  start() {
    this.#up();
  }

  /** Runs a command of the session: `ask('history', '#tim')`. */
  ask(command, rest = '') {
    return this.link.request(`${command} ${this.token}${rest ? ` ${rest}` : ''}`);
  }

  async #up() {
    this.dispatchEvent(new CustomEvent('state', { detail: 0 }));
    try {
      const who = await this.ask('whoami');
      if (who.code === 'not-authorized') {
        this.ended();
        return;
      }
      // Who came or went meanwhile was told to nobody here.
      this.store.online.clear();
      // What waits goes out at once, beside what is asked for.
      this.isReady = true;
      this.outbox.flush();
      const [groups, realms] = await Promise.all([this.ask('groups'), this.ask('connectedrealm')]);
      this.store.realms = realms.realms ?? [];
      this.#groups(groups.groups ?? []);
      await this.#catchUp();
      await this.ask('watch');
      this.isSynced = true;
      this.dispatchEvent(new Event('ready'));
      this.outbox.flush();
      this.look(this.store.current);
      this.#people(await this.ask('users'));
      this.#presence();
    } catch (error) {
      lost(error);
    }
  }

  #down(wait) {
    this.isReady = false;
    this.isSynced = false;
    this.dispatchEvent(new CustomEvent('state', { detail: wait }));
  }

  /** All that was said since the last look, of people and realms, and of each group. */
  async #catchUp() {
    const groups = [...this.store.talks.values()].filter(({ group }) => group && !group.invited);
    const since = this.store.kept.seen;
    await Promise.all([null, ...groups].map((talk) => this.#closeGap(talk, since)));
  }

  async #closeGap(talk, since) {
    const target = talk ? `${this.groupName(talk.key)} ` : '';
    const pages = [];
    let [before, more] = ['', false];
    // The first time the last page is enough; later on back to what is known.
    const isFirst = talk ? talk.items.every((item) => item.isLocal) : !this.hasCaughtUp;
    for (let count = 0; count < GAP_PAGES_MAX; count += 1) {
      const reply = await this.ask('history', `${target}limit=200${before}`);
      if (reply.status !== 'OK') break;
      pages.unshift(...reply.messages);
      more = Boolean(reply.more);
      if (!more || isFirst || reply.messages.some(({ ts }) => ts <= since)) break;
      before = ` before=${reply.messages[0].id}`;
    }
    if (!talk) this.hasCaughtUp = true;
    if (pages.length || talk) this.store.page(pages, talk ? { key: talk.key, more, since } : { since });
  }

  #event(event) {
    if (event.event === 'message') this.store.pushed(event);
    else if (event.event === 'status') this.#status(event);
    else if (event.event === 'logged-out') this.ended();
    else if (event.event === 'presence') {
      this.store.online.set(event.user, event.state === 'online');
      this.store.refreshed();
      this.dispatchEvent(new Event('presence'));
    }
  }

  #status({ ids, state, reason, users = [] }) {
    for (const id of ids) {
      const found = this.store.find(id);
      if (!found) continue;
      const { talk, item } = found;
      // Of several receivers this was one.
      if (talk.kind === 'user' && (users.length < 2)) this.#reached(talk, item, state, reason);
      else this.look(talk);
    }
  }

  #reached(talk, item, state, reason) {
    const known = state === 'accepted' ? 'stored' : state;
    if (RANKS[known] === undefined) return;
    this.store.reached(talk, item, known, known === 'failed' ? errorText({ code: reason }) : '');
    if (known !== 'read' || talk.kind === 'group') return;
    // Who has read one has read those before it: they are in one order.
    for (const earlier of talk.items) {
      if (earlier === item) break;
      if (earlier.mine && !earlier.isLocal && earlier.state !== 'failed') this.store.reached(talk, earlier, 'read');
    }
  }

  #groups(list) {
    const known = new Set();
    for (const group of list) {
      const name = group.group.replace(/^#/, '');
      const key = group.address ?? (name.includes('@') ? `#${name}` : `#${name}@${this.me.realm}`);
      known.add(key);
      this.store.talk(key).group = group;
    }
    for (const talk of this.store.talks.values()) {
      if (talk.kind === 'group' && !known.has(talk.key)) talk.group = null;
    }
    this.store.refreshed();
  }

  /** Looks again which groups there are. */
  async refreshGroups() {
    try {
      const reply = await this.ask('groups');
      if (reply.status === 'OK') this.#groups(reply.groups);
    } catch (error) {
      lost(error);
    }
  }

  /** A group as commands want it: without the realm if it is ours. */
  groupName(key) {
    const own = `@${this.me.realm}`;
    return key.endsWith(own) ? key.slice(0, -own.length) : key;
  }

  #people({ users = [] }) {
    for (const { user, name } of users) this.store.people.set(`${user}@${this.me.realm}`, name);
    this.store.refreshed();
  }

  /** People of this realm whose names begin so. */
  async find(prefix) {
    const reply = await this.ask('users', prefix);
    this.#people(reply);
    return reply.users ?? [];
  }

  /** Opens a conversation: loads what was said if that is not here. */
  async open(talk) {
    this.store.current = talk;
    if (talk.kind === 'user') this.#presence();
    if (talk.kind === 'group' && this.isSynced) this.refreshGroups();
    if (talk.items.length < PAGE / 2 && talk.hasOlder) await this.older(talk);
    this.look(talk);
  }

  /** Loads what was said before; false if that was all, or cannot be had now. */
  async older(talk) {
    if (!talk.hasOlder || talk.isLoading || !this.isReady || talk.kind === 'list') return false;
    if (talk.kind === 'group' && (!talk.group || talk.group.invited)) return false;
    talk.isLoading = true;
    try {
      const first = talk.items.find((item) => !item.isLocal);
      const target = talk.kind === 'group' ? this.groupName(talk.key) : this.store.short(talk.key);
      const before = first ? ` before=${dashed(first.id)}` : '';
      const reply = await this.ask('history', `${target}${before} limit=${PAGE}`);
      if (reply.status !== 'OK') {
        talk.hasOlder = false;
        return false;
      }
      // Of a realm only its own words belong here: its people have conversations of their own.
      const messages = talk.kind === 'realm'
        ? reply.messages.filter(({ from }) => from === talk.key) : reply.messages.filter((m) => this.store.keyOf(m) === talk.key);
      this.store.page(messages, { key: talk.key, more: Boolean(reply.more), isOlder: true });
      return true;
    } catch (error) {
      lost(error);
      return false;
    } finally {
      talk.isLoading = false;
    }
  }

  /** Asks soon how far our messages of a conversation have come; what was pushed meanwhile makes it ask for less. */
  look(talk) {
    if (!talk) return;
    this.#lookWait = LOOK_MIN_MS;
    clearTimeout(this.#lookTimer);
    this.#lookTimer = setTimeout(() => this.#lookNow(talk), 60);
  }

  async #lookNow(talk) {
    if (!this.isReady || talk !== this.store.current || talk.kind === 'realm') return;
    const wanted = talk.items.filter((item) => item.mine && !item.isLocal && RANKS[item.state] < RANKS.read);
    let isNew = false;
    try {
      // From the newest on: if it was read, so were those before it.
      for (const item of wanted.slice(-LOOK_AT_ONCE).reverse()) {
        if (RANKS[item.state] >= RANKS.read) break;
        const reply = await this.ask('status', dashed(item.id));
        item.receivers = reply.receivers;
        if (reply.status !== 'OK' || reply.state === item.state) continue;
        const before = item.state;
        this.#reached(talk, item, reply.state, reply.receivers?.find(({ reason }) => reason)?.reason);
        isNew ||= item.state !== before;
      }
    } catch (error) {
      lost(error);
      return;
    }
    if (wanted.length === 0 || document.hidden || talk !== this.store.current) return;
    this.#lookWait = isNew ? LOOK_MIN_MS : Math.min(this.#lookWait * 1.5, LOOK_MAX_MS);
    clearTimeout(this.#lookTimer);
    this.#lookTimer = setTimeout(() => this.#lookNow(talk), this.#lookWait);
  }

  async #lanes() {
    if (!this.isSynced || document.hidden) return;
    const talk = this.store.current;
    const isBusy = (talk && (talk.kind === 'group' || this.store.realmOf(talk)))
      || this.store.realms.some(({ state, queued }) => state !== 'up' || queued);
    if (!isBusy && Date.now() - this.#lanesAt < LANES_IDLE_MS) return;
    this.#lanesAt = Date.now();
    try {
      // Invitations, and groups of other realms that took their time, are not pushed.
      await this.refreshGroups();
      const reply = await this.ask('connectedrealm');
      if (reply.status !== 'OK') return;
      this.store.realms = reply.realms;
      this.store.refreshed();
    } catch (error) {
      lost(error);
    }
  }

  #presence() {
    const talk = this.store.current;
    if (this.isSynced && !document.hidden && talk?.kind === 'user') this.lookWhoIsThere([talk.key]);
  }

  /** Asks of people whether they are there; of other realms nobody can tell. What changes in groups is pushed later on. */
  async lookWhoIsThere(addresses) {
    const own = addresses.filter((address) => address.endsWith(`@${this.me.realm}`)).slice(0, PRESENCE_AT_ONCE);
    try {
      await Promise.all(own.map(async (address) => {
        const reply = await this.ask('getpresence', this.store.short(address));
        if (reply.status === 'OK') this.store.online.set(address, reply.online);
      }));
    } catch (error) {
      lost(error);
    }
    this.store.refreshed();
  }

  /** What was found, newest first. */
  async search(words, before = '') {
    return this.ask('search', `${words}${before ? ` before=${before}` : ''} limit=30`);
  }

  /** The session is over: it was ended elsewhere, or here. */
  ended() {
    this.stop();
    keepToken(null);
    this.dispatchEvent(new Event('ended'));
  }

  /** Ends it on purpose. */
  async logout() {
    try {
      await this.ask('logout');
    } catch {
      // It ends by itself some day; this page forgets it now.
    }
    this.outbox.clear();
    this.ended();
    // What was begun and not sent is nobody else's business.
    sessionStorage.clear();
  }

  stop() {
    this.isReady = false;
    this.isSynced = false;
    this.#abort.abort();
    this.#timers.forEach(clearInterval);
    clearTimeout(this.#lookTimer);
  }
}

