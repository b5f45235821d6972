// The messages of one conversation. Few of them are elements at a time: those around what is looked at. Each frame makes
// a bounded number of them, so that a thousand that come at once do not hold up the page.

import { avatar, h, icon, oncePerFrame } from '../dom.js';
import { t } from '../i18n.js';
import { clock, dayName, dayOf, full } from '../format.js';
import { fileBody, textBody, uploadBody } from './body.js';

/** Rows that are elements at a time. */
const ROWS_MAX = 240;
/** Rows that are shown at first, and that are added when somebody scrolls to an end. */
const ROWS_STEP = 80;
/** Elements made in a frame. */
const MADE_MAX = 40;
/** Messages of one person within so long stand together. */
const TOGETHER_MS = 5 * 60_000;
/** So near to the end counts as at the end, in pixels. */
const END_PX = 60;

const TICKS = { queued: 'clock', stored: 'tick', delivered: 'ticks', read: 'ticks', failed: 'warn' };

export class MessagesView {
  #talk = null;
  #start = 0;
  #end = 0;
  #nodes = new Map();
  #isAtEnd = true;
  #marker = null;
  #loading = false;
  /** Where was scrolled to, as far as is known. */
  #top = 0;

  constructor(session, files, { onEnd }) {
    this.session = session;
    this.files = files;
    this.onEnd = onEnd;
    this.list = h('ol', { class: 'messages' });
    this.empty = h('div', { class: 'empty', hidden: true });
    this.scroller = h('div', { class: 'scroller', tabIndex: 0, role: 'region', onscroll: () => this.#scrolled() }, this.empty, this.list);
    this.jump = h('button', { type: 'button', class: 'jump', hidden: true, onclick: () => this.toEnd() }, t('jump'));
    this.node = h('div', { class: 'messages-pane' }, this.scroller, this.jump);
    this.draw = oncePerFrame(() => this.#draw());
    // What is added or grows (a picture) moves the end; who was at the end stays there.
    this.observer = new ResizeObserver(() => this.#isAtEnd && this.#scrollToEnd());
    this.observer.observe(this.list);
    this.observer.observe(this.scroller);
  }

  /** Shows another conversation, at its end. */
  open(talk) {
    this.#talk = talk;
    this.#nodes.clear();
    this.list.replaceChildren();
    this.#marker = talk.unread.size ? talk.marker : null;
    this.scroller.setAttribute('aria-label', t('messages.with', { name: this.session.store.name(talk) }));
    this.#isAtEnd = true;
    this.#end = talk.items.length;
    this.#start = Math.max(0, this.#end - ROWS_STEP);
    this.#draw();
  }

  get isAtEnd() {
    return this.#isAtEnd;
  }

  /** Goes to what was said last. */
  toEnd() {
    this.#isAtEnd = true;
    this.#marker = null;
    const count = this.#talk.items.length;
    this.#end = count;
    this.#start = Math.max(0, count - ROWS_STEP);
    this.draw();
    this.onEnd();
  }

  /** Shows one message, loading what was said before as far as it takes. */
  async reveal(id) {
    const talk = this.#talk;
    for (let page = 0; page < 30 && !talk.byId.has(id); page += 1) {
      if (!await this.session.older(talk) || talk !== this.#talk) return false;
    }
    const at = talk.items.findIndex((item) => item.id === id);
    if (at < 0) return false;
    this.#isAtEnd = false;
    this.#start = Math.max(0, at - ROWS_STEP / 2);
    this.#end = Math.min(talk.items.length, at + ROWS_STEP / 2);
    while (this.#draw());
    const node = this.#nodes.get(id)?.node;
    node?.classList.add('found');
    // Rows have their true height only once they are in sight: look a few times.
    for (let frame = 0; frame < 4; frame += 1) {
      node?.scrollIntoView({ block: 'center' });
      await new Promise(requestAnimationFrame);
    }
    return true;
  }

  #scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.scroller;
    const items = this.#talk?.items ?? [];
    const isNear = scrollHeight - scrollTop - clientHeight < END_PX;
    // Who was at the end leaves it by going up alone: what comes meanwhile moves the end, and not them.
    const atEnd = this.#isAtEnd ? isNear || scrollTop >= this.#top : isNear && this.#end >= items.length;
    this.#top = scrollTop;
    if (atEnd && !this.#isAtEnd) this.onEnd();
    this.#isAtEnd = atEnd;
    this.jump.hidden = atEnd;
    if (scrollTop < 300) this.#more();
    else if (scrollHeight - scrollTop - clientHeight < 300 && this.#end < items.length) {
      this.#end = Math.min(items.length, this.#end + ROWS_STEP);
      this.#start = Math.max(this.#start, this.#end - ROWS_MAX);
      this.draw();
    }
  }

  /** Shows, or loads, what was said before. */
  async #more() {
    const talk = this.#talk;
    if (this.#start > 0) {
      this.#start = Math.max(0, this.#start - ROWS_STEP);
      this.#end = Math.min(this.#end, this.#start + ROWS_MAX);
      this.draw();
      return;
    }
    if (this.#loading || !talk.hasOlder) return;
    this.#loading = true;
    const before = talk.items.length;
    const found = await this.session.older(talk);
    this.#loading = false;
    if (!found || talk !== this.#talk) return;
    const added = talk.items.length - before;
    this.#start = Math.max(0, added - ROWS_STEP);
    this.#end = Math.min(talk.items.length, Math.max(this.#end + added, this.#start + ROWS_STEP), this.#start + ROWS_MAX);
    this.draw();
  }

  /** The rows that are wanted: messages, days between them, and where the new ones begin. */
  #rows() {
    const { items } = this.#talk;
    const rows = [];
    for (let at = this.#start; at < this.#end; at += 1) {
      const item = items[at];
      const before = items[at - 1];
      const isNewDay = !before || dayOf(before.ts) !== dayOf(item.ts);
      if (isNewDay) rows.push({ key: `day ${dayOf(item.ts)}`, make: () => dayRow(item.ts), rev: document.documentElement.lang });
      if (item.id === this.#marker) rows.push({ key: 'new', make: () => h('li', { class: 'new-line' }, h('span', {}, t('new'))), rev: '' });
      const isJoined = !isNewDay && before.from === item.from && item.ts - before.ts < TOGETHER_MS && item.id !== this.#marker
        && !before.notice;
      const rev = `${item.state} ${item.reason} ${isJoined} ${item.upload?.done ?? ''} ${item.file?.id ?? ''} ${item.ts} ${seenBy(item)}`;
      rows.push({ key: item.id, make: () => this.#row(item, isJoined), rev });
    }
    return rows;
  }

  /** Brings the elements to what is wanted; true if another frame is needed. */
  #draw() {
    const talk = this.#talk;
    if (!talk) return false;
    if (this.#isAtEnd) {
      this.#end = talk.items.length;
      this.#start = Math.max(0, Math.min(this.#start, this.#end - ROWS_STEP), this.#end - ROWS_MAX);
    }
    this.#end = Math.min(this.#end, talk.items.length);
    this.#start = Math.min(this.#start, this.#end);
    const rows = this.#rows();
    const anchor = this.#isAtEnd ? null : this.#anchor(rows);
    const wanted = new Set(rows.map(({ key }) => key));
    for (const [key, { node }] of this.#nodes) {
      if (wanted.has(key)) continue;
      node.remove();
      this.#nodes.delete(key);
    }
    // The last ones first: that is where somebody looks. What stands before them comes in the next frames.
    let made = 0;
    let behind = null;
    for (let at = rows.length - 1; at >= 0; at -= 1) {
      const { key, make, rev } = rows[at];
      let known = this.#nodes.get(key);
      if (!known || known.rev !== rev) {
        if (made >= MADE_MAX) {
          if (!known) continue;
        } else {
          made += 1;
          const node = make();
          if (known) {
            const hadFocus = known.node.contains(document.activeElement);
            known.node.replaceWith(node);
            if (hadFocus) (node.querySelector('button, a') ?? this.scroller).focus({ preventScroll: true });
          }
          known = { node, rev };
          this.#nodes.set(key, known);
        }
      }
      if (known.node.parentNode !== this.list || known.node.nextSibling !== behind) this.list.insertBefore(known.node, behind);
      behind = known.node;
    }
    this.#drawEmpty();
    if (anchor) this.scroller.scrollTop += anchor.node.getBoundingClientRect().top - anchor.top;
    else this.#scrollToEnd();
    const isMore = made >= MADE_MAX;
    if (isMore) this.draw();
    return isMore;
  }

  #drawEmpty() {
    const talk = this.#talk;
    this.empty.hidden = talk.items.length > 0;
    if (this.empty.hidden) return;
    const name = this.session.store.name(talk);
    this.empty.replaceChildren(avatar(talk.key, talk.kind, name), h('p', {}, t(talk.kind === 'realm' ? 'empty.realm' : 'empty', { name })));
  }

  /** The first row that is in sight and stays: it does not move. */
  #anchor(rows) {
    const top = this.scroller.getBoundingClientRect().top;
    for (const { key } of rows) {
      const node = this.#nodes.get(key)?.node;
      if (!node) continue;
      const rect = node.getBoundingClientRect();
      if (rect.bottom > top) return { node, top: rect.top };
    }
    return null;
  }

  #scrollToEnd() {
    this.scroller.scrollTop = this.scroller.scrollHeight;
    this.#top = this.scroller.scrollTop;
  }

  #row(item, isJoined) {
    const { store } = this.session;
    if (item.notice) {
      return h('li', { class: 'notice' }, icon('info'), h('span', {}, `${item.name}: ${item.text}`),
        h('time', { title: full(item.ts) }, clock(item.ts)));
    }
    const isMany = this.#talk.kind !== 'user';
    const body = item.upload ? uploadBody(item, this.files, this.#talk)
      : item.file ? fileBody(item.file, this.files) : textBody(item.text, store.me);
    const from = item.mine ? t('you') : item.name;
    const who = !item.mine && isMany && !isJoined
      ? h('span', { class: `who c${colour(item.from)}`, title: item.from }, item.name,
        this.session.store.short(item.from).includes('@') && h('small', {}, ` ${store.short(item.from)}`))
      : h('span', { class: 'sr' }, `${from}: `);
    return h('li', { class: `row${item.mine ? ' mine' : ''}${isJoined ? ' joined' : ''} ${item.state}`, data: { id: item.id } },
      isMany && !item.mine && (isJoined ? h('span', { class: 'avatar-gap' }) : avatar(item.from, 'user', item.name)),
      h('div', { class: `bubble${item.file || item.upload ? ' with-file' : ''}` }, who, body,
        h('span', { class: 'meta' }, h('time', { title: full(item.ts), dateTime: new Date(item.ts).toISOString() }, clock(item.ts)),
          item.mine && this.#tick(item))),
      item.mine && item.reason && this.#reason(item));
  }

  #tick(item) {
    const label = t(`state.${item.state}`) + (item.reason ? `: ${item.reason}` : '') + seenBy(item);
    return h('span', { class: `tick ${item.state}`, data: { state: item.state }, title: label }, icon(TICKS[item.state], label));
  }

  /** Why it did not go, and what can be done. */
  #reason(item) {
    const talk = this.#talk;
    const { outbox } = this.session;
    const failed = item.state === 'failed';
    const agent = item.upload ? this.files : outbox;
    const canRetry = failed && !item.file && (!item.upload || item.upload.canRetry);
    return h('div', { class: 'reason' }, h('span', {}, item.reason),
      canRetry && h('button', { type: 'button', class: 'link retry', onclick: () => agent.retry(talk, item) }, t('retry')),
      failed && item.isLocal && h('button', { type: 'button', class: 'link', onclick: () => agent.discard(talk, item) }, t('discard')));
  }

  end() {
    this.observer.disconnect();
  }
}

/** By how many of a group it was read, if somebody asked. */
function seenBy({ receivers }) {
  if (!receivers || receivers.length < 2) return '';
  return ` (${t('read.by', { n: receivers.filter(({ state }) => state === 'read').length, all: receivers.length })})`;
}

function colour(key) {
  let sum = 0;
  for (const letter of key) sum = (sum * 31 + letter.codePointAt(0)) >>> 0;
  return sum % 8;
}

function dayRow(ts) {
  return h('li', { class: 'day' }, h('span', {}, dayName(ts)));
}
