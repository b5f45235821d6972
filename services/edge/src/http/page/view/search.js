// `/`: looks through all that was said to and by oneself, in the realm and not only in what is loaded here.

import { dialogHead, h, icon, openDialog } from '../dom.js';
import { Lost } from '../net.js';
import { errorText, t } from '../i18n.js';
import { brief, clock, dayOf, full } from '../format.js';
import { plain } from '../store.js';

/** Time without a key after which is searched, in milliseconds. */
const PAUSE_MS = 250;

export function openSearch(session, { reveal }) {
  const { store } = session;
  const input = h('input', { type: 'text', role: 'searchbox', class: 'search-input', 'aria-label': t('search'), placeholder: t('search.hint'), autocomplete: 'off' });
  const state = h('p', { class: 'search-state', role: 'status' });
  const list = h('ul', { class: 'found-list' });
  const more = h('button', { type: 'button', class: 'link', hidden: true, onclick: () => search(next) }, t('search.more'));
  const dialog = openDialog(t('search'), { class: 'search' },
    dialogHead(t('search'), t('close')), h('div', { class: 'palette-line' }, icon('search'), input), state, list, more);
  let timer = 0;
  let next = '';
  let round = 0;

  async function search(before = '') {
    const words = input.value.trim().replace(/\s+/g, ' ');
    round += 1;
    const mine = round;
    if (!before) list.replaceChildren();
    more.hidden = true;
    state.textContent = words ? t('search.going') : '';
    if (!words) return;
    try {
      const reply = await session.search(words, before);
      // Other words were typed meanwhile.
      if (mine !== round) return;
      if (reply.status !== 'OK') {
        state.textContent = errorText(reply);
        return;
      }
      list.append(...reply.messages.map(row));
      next = reply.next ?? '';
      more.hidden = !next;
      state.textContent = list.children.length ? t('search.found', { n: list.children.length }) : t('search.none');
    } catch (error) {
      if (!(error instanceof Lost)) throw error;
      state.textContent = t('offline.short');
    }
  }

  function row(message) {
    const key = store.keyOf(message);
    const mine = message.from === store.me.address;
    const ts = Date.parse(message.ts);
    return h('li', {}, h('button', {
      type: 'button', class: 'found-button',
      onclick: () => { dialog.close(); reveal(store.talk(key), plain(message.id)); },
    },
    h('span', { class: 'found-head' }, h('b', {}, store.short(key)), ` · ${mine ? t('you') : message.msg_from}`,
      h('time', { title: full(ts) }, dayOf(ts) === dayOf(Date.now()) ? clock(ts) : `${brief(ts)} ${clock(ts)}`)),
    h('span', { class: 'found-text', dir: 'auto' }, message.msg.slice(0, 400))));
  }

  input.addEventListener('input', () => {
    clearTimeout(timer);
    timer = setTimeout(() => search(), PAUSE_MS);
  });
  dialog.addEventListener('keydown', (event) => {
    if (event.key === 'Enter' && event.target === input) {
      event.preventDefault();
      clearTimeout(timer);
      search();
      return;
    }
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const all = [input, ...list.querySelectorAll('button')];
    const at = all.indexOf(document.activeElement);
    all[Math.max(0, Math.min(all.length - 1, at + step))].focus();
  });
  dialog.addEventListener('close', () => clearTimeout(timer));
  input.focus();
  return dialog;
}
