// The conversations at the side: people, groups and realms, each with what is unread of it.

import { avatar, h, iconButton, oncePerFrame } from '../dom.js';
import { t } from '../i18n.js';
import { brief, laneText } from '../format.js';

const SECTIONS = [['people', ['user', 'list']], ['groups', ['group']], ['realms', ['realm']]];

export class ListView {
  #nodes = new Map();

  constructor(session, { onOpen, onNew, onGroup, onRealm }) {
    this.session = session;
    this.onOpen = onOpen;
    this.sections = SECTIONS.map(([name, kinds]) => {
      const add = { people: onNew, groups: onGroup, realms: onRealm }[name];
      const list = h('ul', { class: 'talks', 'aria-labelledby': `side-${name}` });
      const hint = h('p', { class: 'side-hint', hidden: true }, t(`none.${name}`));
      return {
        kinds, list, hint,
        node: h('section', {}, h('header', { class: 'side-head' }, h('h2', { id: `side-${name}` }, t(name)),
          iconButton('plus', t(`add.${name}`), add)), list, hint),
      };
    });
    this.node = h('div', { class: 'side-list', onkeydown: (event) => this.#key(event) }, this.sections.map(({ node }) => node));
    this.draw = oncePerFrame(() => this.#draw());
  }

  /** All conversations in the order in which they stand here. */
  shown() {
    const { store } = this.session;
    const realms = new Set(store.realms.map(({ realm }) => `@${realm}`));
    for (const key of realms) if (!store.talks.has(key)) store.talk(key);
    const all = store.sorted();
    return this.sections.map(({ kinds }) => all.filter((talk) => kinds.includes(talk.kind)
      && (talk.items.length || talk.group || realms.has(talk.key) || talk === store.current || talk.unread.size)));
  }

  #draw() {
    const wanted = new Set();
    this.shown().forEach((talks, at) => {
      const { list, hint } = this.sections[at];
      hint.hidden = talks.length > 0;
      let next = list.firstChild;
      for (const talk of talks) {
        wanted.add(talk.key);
        const node = this.#node(talk);
        if (node === next) next = next.nextSibling;
        else list.insertBefore(node, next);
      }
    });
    for (const [key, { node }] of this.#nodes) {
      if (wanted.has(key)) continue;
      node.remove();
      this.#nodes.delete(key);
    }
  }

  /** The element of a conversation; made anew only if something about it has changed. */
  #node(talk) {
    const { store } = this.session;
    const last = talk.items.at(-1);
    const people = store.people.get(talk.key);
    const lane = talk.kind === 'realm' ? laneText(store.lane(talk.key.slice(1))) : '';
    const isCurrent = talk === store.current;
    const isOnline = store.online.get(talk.key) === true;
    const rev = [last?.id, last?.state, talk.unread.size, talk.mentions.size, isCurrent, isOnline, lane, talk.group?.invited,
      people, brief(talk.last), talk.group?.topic].join(' ');
    let known = this.#nodes.get(talk.key);
    if (known?.rev === rev) return known.node;
    const content = this.#content(talk, last, lane, isOnline, people);
    if (!known) {
      const button = h('button', { type: 'button', class: 'talk-button', data: { key: talk.key }, onclick: () => this.onOpen(talk) });
      known = { node: h('li', {}, button), button };
      this.#nodes.set(talk.key, known);
    }
    known.rev = rev;
    known.button.replaceChildren(...content);
    if (isCurrent) known.button.setAttribute('aria-current', 'true');
    else known.button.removeAttribute('aria-current');
    return known.node;
  }

  #content(talk, last, lane, isOnline, people) {
    const { store } = this.session;
    const name = store.name(talk);
    const said = last && `${last.mine ? `${t('you')}: ` : talk.kind === 'group' ? `${last.name}: ` : ''}${last.file?.name ?? last.text}`;
    const note = talk.group?.invited ? t('invited') : lane || said || talk.group?.topic || (talk.kind === 'realm' ? t('lane.up') : '');
    return [
      h('span', { class: 'avatar-box' }, avatar(talk.key, talk.kind, people ?? name), isOnline && h('span', { class: 'dot', title: t('online') })),
      h('span', { class: 'talk-text' },
        h('span', { class: 'talk-name' }, h('bdi', {}, name.replace(/^@/, '')), people && people !== name && h('small', {}, people)),
        h('span', { class: `talk-last${lane ? ' lane' : ''}` }, note.slice(0, 120)),
        isOnline && h('span', { class: 'sr' }, t('online'))),
      h('span', { class: 'talk-side' }, h('time', {}, last ? brief(last.ts) : ''),
        h('span', { class: 'badges' },
          talk.mentions.size > 0 && h('span', { class: 'badge mention', title: t('mentions', { n: talk.mentions.size }) }, '@',
            h('span', { class: 'sr' }, t('mentions', { n: talk.mentions.size }))),
          talk.unread.size > 0 && h('span', { class: 'badge', data: { unread: talk.unread.size } },
            h('span', { 'aria-hidden': 'true' }, talk.unread.size > 99 ? '99+' : String(talk.unread.size)),
            h('span', { class: 'sr' }, t('unread', { n: talk.unread.size }))))),
    ];
  }

  /** Arrows go from one to the next. */
  #key(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    const buttons = [...this.node.querySelectorAll('.talk-button')];
    const at = buttons.indexOf(document.activeElement);
    const next = buttons[at < 0 ? 0 : at + step];
    if (!next) return;
    event.preventDefault();
    next.focus();
  }

  /** Moves the focus to the current conversation, or the first one. */
  focus() {
    (this.node.querySelector('[aria-current]') ?? this.node.querySelector('.talk-button'))?.focus();
  }
}
