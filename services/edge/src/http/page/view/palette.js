// Ctrl-K: go to a conversation, or begin one, by a few letters of a name. `user`, `user@realm`, `#group`.

import { avatar, h, icon, openDialog } from '../dom.js';
import { Lost } from '../net.js';
import { t } from '../i18n.js';

const SHOWN_MAX = 12;
const NAME = /^[a-z0-9][a-z0-9_-]{0,31}$/;

/** Opens it. `start` is what stands in its line at first; `actions` do what a choice says. */
export function openPalette(session, actions, start = '') {
  const { store } = session;
  const input = h('input', {
    type: 'text', class: 'palette-input', role: 'combobox', 'aria-expanded': 'true', 'aria-controls': 'palette-list',
    'aria-autocomplete': 'list', 'aria-label': t('palette'), placeholder: t('palette.hint'), value: start,
    autocomplete: 'off', autocapitalize: 'none', spellcheck: false,
  });
  const list = h('ul', { id: 'palette-list', role: 'listbox', 'aria-label': t('palette') });
  const dialog = openDialog(t('palette'), { class: 'palette' }, h('div', { class: 'palette-line' }, icon('search'), input), list);
  let choices = [];
  let chosen = 0;
  let asked = '';

  const address = (name) => (name.includes('@') ? name : `${name}@${store.me.realm}`);

  function offers() {
    const text = input.value.trim();
    const lower = text.toLowerCase();
    const found = [];
    const keys = new Set();
    const add = (key, choice) => {
      if (keys.has(key) || found.length >= SHOWN_MAX) return;
      keys.add(key);
      found.push({ key, ...choice });
    };
    const open = (key, hint) => {
      const talk = store.talks.get(key);
      add(key, { kind: kindOf(key), name: store.short(key), hint: hint ?? store.people.get(key) ?? '', talk, run: () => actions.open(store.talk(key)) });
    };
    const rank = (name, words) => (name.startsWith(lower) ? 0 : words.includes(lower) ? 1 : 2);
    const known = store.sorted().filter((talk) => talk.kind !== 'realm' || store.lane(talk.key.slice(1)))
      .map((talk) => ({ talk, rank: rank(store.name(talk).replace(/^[#@]/, lower.startsWith('#') || lower.startsWith('@') ? '$&' : ''),
        `${store.name(talk)} ${store.people.get(talk.key) ?? ''}`.toLowerCase()) }))
      .filter((one) => one.rank < 2).sort((one, other) => one.rank - other.rank);
    for (const { talk } of known) open(talk.key);
    if (text.startsWith('#')) groupOffers(lower, add);
    else personOffers(lower, open, add);
    if (!text || t('add.realms').toLowerCase().includes(lower)) {
      add('add-realm', { kind: 'plus', name: t('add.realms'), hint: '', run: actions.addRealm });
    }
    return found;
  }

  function groupOffers(text, add) {
    const name = text.slice(1).split('@')[0];
    if (!NAME.test(name) || store.talks.get(`#${name}@${store.me.realm}`)?.group) return;
    const isElsewhere = text.includes('@');
    add(`join ${text}`, { kind: 'group', name: t('join', { name: text }), hint: '', run: () => actions.join(text) });
    if (isElsewhere) return;
    add(`open ${name}`, { kind: 'plus', name: t('make.open', { name: `#${name}` }), hint: t('make.open.hint'), run: () => actions.make(name, 'open') });
    add(`invite ${name}`, { kind: 'plus', name: t('make.invite', { name: `#${name}` }), hint: t('make.invite.hint'), run: () => actions.make(name, 'invite') });
  }

  function personOffers(text, open, add) {
    const [name, realm] = text.split('@');
    if (realm === undefined) {
      for (const [key, shown] of store.people) {
        if (key === store.me.address && text !== store.me.user) continue;
        if (key.startsWith(text) || (text && shown.toLowerCase().includes(text))) open(key, shown);
      }
      return;
    }
    if (!NAME.test(name)) return;
    for (const one of store.realms) {
      if (one.realm.startsWith(realm)) open(`${name}@${one.realm}`, t('write.to', { realm: one.realm }));
    }
    const isKnown = realm === store.me.realm || store.lane(realm);
    if (NAME.test(realm) && !isKnown) {
      add(`new ${text}`, { kind: 'plus', name: t('add.realm.named', { realm }), hint: t('realm.unknown'), run: () => actions.addRealm(realm, address(text)) });
    }
  }

  function kindOf(key) {
    return key.startsWith('#') ? 'group' : key.startsWith('@') ? 'realm' : 'user';
  }

  function draw() {
    choices = offers();
    chosen = Math.min(chosen, Math.max(0, choices.length - 1));
    list.replaceChildren(...choices.map((choice, at) => h('li', {
      id: `choice-${at}`, role: 'option', 'aria-selected': String(at === chosen), class: at === chosen ? 'chosen' : '',
      onclick: () => run(at), onpointermove: () => at !== chosen && choose(at),
    },
    choice.kind === 'plus' ? h('span', { class: 'avatar plus' }, icon('plus')) : avatar(choice.key, choice.kind, store.people.get(choice.key) ?? choice.name),
    h('span', { class: 'choice-text' }, h('bdi', {}, choice.name), choice.hint && h('small', {}, choice.hint)),
    choice.talk?.unread.size > 0 && h('span', { class: 'badge' }, String(choice.talk.unread.size)))));
    if (choices.length === 0) list.append(h('li', { class: 'none', role: 'option', 'aria-disabled': 'true' }, t('palette.none')));
    input.setAttribute('aria-activedescendant', choices.length ? `choice-${chosen}` : '');
  }

  function choose(at) {
    if (choices.length === 0) return;
    chosen = (at + choices.length) % choices.length;
    [...list.children].forEach((node, index) => {
      node.setAttribute('aria-selected', String(index === chosen));
      node.classList.toggle('chosen', index === chosen);
      if (index === chosen) node.scrollIntoView({ block: 'nearest' });
    });
    input.setAttribute('aria-activedescendant', `choice-${chosen}`);
  }

  function run(at) {
    const choice = choices[at];
    if (!choice) return;
    dialog.close();
    choice.run();
  }

  /** People of this realm whom this page has not heard of. */
  async function ask() {
    const prefix = input.value.trim().toLowerCase();
    if (!NAME.test(prefix) || prefix === asked) return;
    asked = prefix;
    try {
      await session.find(prefix);
    } catch (error) {
      if (!(error instanceof Lost)) throw error;
    }
    if (dialog.open) draw();
  }

  input.addEventListener('input', () => { chosen = 0; draw(); ask(); });
  input.addEventListener('keydown', (event) => {
    if (event.key === 'ArrowDown') choose(chosen + 1);
    else if (event.key === 'ArrowUp') choose(chosen - 1);
    else if (event.key === 'Enter') run(chosen);
    else if (event.key === 'Tab' && choices[chosen] && choices[chosen].kind !== 'plus') {
      // Completes the name and goes on: `line` becomes `lineker`.
      input.value = choices[chosen].name;
      draw();
    } else return;
    event.preventDefault();
  });
  draw();
  input.focus();
  input.setSelectionRange(start.length, start.length);
  return dialog;
}
