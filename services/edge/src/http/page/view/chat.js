// The conversations of somebody who has logged in: the side, the open conversation, and keys that hold everywhere.

import { announce, avatar, h, icon, iconButton, oncePerFrame, present } from '../dom.js';
import { Lost } from '../net.js';
import { errorText, t } from '../i18n.js';
import { laneText } from '../format.js';
import { Files } from '../files.js';
import { Composer } from './composer.js';
import { ListView } from './list.js';
import { MessagesView } from './messages.js';
import { openPalette } from './palette.js';
import { openSearch } from './search.js';
import { openGroup, openGroupForm, openHelp, openRealmForm } from './dialogs.js';
import { langSelect, themeButton } from './login.js';

export function chatView(session, { isUp }) {
  const { store } = session;
  const files = new Files(session);
  const abort = new AbortController();
  const { signal } = abort;
  /** Where is kept which conversation a reload opens again. */
  const openKey = `antar.open.${store.me.address}`;
  const reopened = sessionStorage.getItem(openKey);
  if (reopened) store.current = store.talk(reopened);
  let parts = null;
  let countdown = 0;

  const node = h('div', { class: 'chat', data: { screen: 'list' } });
  const banner = h('div', { class: 'banner', role: 'status', hidden: true });
  const toast = h('div', { class: 'toast', role: 'alert', hidden: true });

  /** Makes everything; again if another language was chosen. */
  function build() {
    parts?.messages.end();
    const list = new ListView(session, {
      onOpen: (talk) => open(talk), onNew: () => palette(), onGroup: groupForm, onRealm: () => addRealm(),
    });
    const messages = new MessagesView(session, files, { onEnd: looked });
    const composer = new Composer(session, files, { onLeave: leave, onSaid: () => messages.toEnd() });
    const head = h('header', { class: 'talk-head' });
    const lane = h('p', { class: 'lane-note', role: 'status', hidden: true });
    const invite = h('div', { class: 'invite', hidden: true });
    const drop = h('div', { class: 'drop', hidden: true }, t('drop'));
    const talk = h('main', { class: 'talk', 'aria-label': t('talk') }, head, lane, invite, messages.node, composer.node, drop);
    const welcome = h('main', { class: 'welcome' }, h('img', { src: 'icon.svg', alt: '', width: 72, height: 72 }),
      h('h1', {}, t('welcome', { name: store.me.name })), h('p', {}, t('welcome.hint')),
      h('button', { type: 'button', class: 'primary', onclick: () => palette() }, t('add.people')),
      h('p', { class: 'welcome-keys' }, h('kbd', {}, 'Ctrl'), h('kbd', {}, 'K'), ' ', t('key.palette'), ' · ', h('kbd', {}, '?'), ' ', t('key.help')));
    const side = h('nav', { class: 'side', 'aria-label': t('conversations') },
      h('header', { class: 'side-me' }, avatar(store.me.address, 'user', store.me.name),
        h('span', { class: 'me-text' }, h('b', {}, store.me.name), h('small', {}, store.me.address)),
        iconButton('search', t('search'), search), iconButton('plus', t('add.people'), () => palette(), { class: 'icon-button accent' })),
      list.node,
      h('footer', { class: 'side-foot' }, langSelect(build), themeButton(), iconButton('help', t('help'), openHelp),
        iconButton('leave', t('logout'), () => session.logout())));
    parts = { list, messages, composer, head, lane, invite, drop, talk, welcome };
    node.replaceChildren(banner, side, talk, welcome, toast);
    dropTarget(talk);
    if (store.current) open(store.current);
    else show();
    list.draw();
  }

  function show() {
    parts.talk.hidden = !store.current;
    parts.welcome.hidden = Boolean(store.current);
  }

  async function open(talk, { focus = true } = {}) {
    store.current = talk;
    sessionStorage.setItem(openKey, talk.key);
    node.dataset.screen = 'talk';
    show();
    parts.messages.open(talk);
    parts.composer.open(talk, silence(talk));
    looked();
    drawHead();
    parts.list.draw();
    if (focus) parts.composer.focus();
    await session.open(talk);
  }

  /** Why nothing can be said in a conversation; empty if it can. */
  function silence(talk) {
    if (talk.kind === 'realm') return t('realm.compose', { realm: talk.key.slice(1) });
    if (talk.kind !== 'group') return '';
    if (talk.group?.invited) return t('invited');
    return talk.group || !session.isSynced ? '' : t('group.left');
  }

  /** Leaves the conversation; what was begun in it stays. */
  function leave() {
    node.dataset.screen = 'list';
    parts.list.focus();
  }

  function close() {
    store.current = null;
    sessionStorage.removeItem(openKey);
    node.dataset.screen = 'list';
    show();
    parts.list.draw();
  }

  const drawHead = oncePerFrame(() => {
    const talk = store.current;
    if (!talk) return;
    const name = store.name(talk).replace(/^@/, '');
    const isOnline = store.online.get(talk.key);
    const people = store.people.get(talk.key);
    const note = talk.kind === 'group' ? talk.group && [t(talk.group.members === 1 ? 'members.1' : 'members.n', { n: talk.group.members }), talk.group.topic].filter(Boolean).join(' · ')
      : talk.kind === 'realm' ? t('realm') : [people !== name && people, isOnline === undefined ? '' : t(isOnline ? 'online' : 'away')].filter(Boolean).join(' · ');
    const realm = talk.kind === 'realm' ? talk.key.slice(1) : talk.kind === 'group' ? '' : store.realmOf(talk);
    const state = laneText(store.lane(realm));
    const lane = state && `${realm}: ${state}`;
    // What stays as it is is not made anew: it may have the focus, or be just being read out.
    const rev = JSON.stringify([talk.key, people, isOnline, note, lane, talk.group, session.isSynced]);
    if (parts.head.dataset.rev === rev) return;
    parts.head.dataset.rev = rev;
    parts.head.replaceChildren(...present([
      iconButton('back', t('back'), leave, { class: 'icon-button back' }),
      h('span', { class: 'avatar-box' }, avatar(talk.key, talk.kind, people ?? name), isOnline && h('span', { class: 'dot' })),
      h('span', { class: 'talk-title' }, h('h1', {}, h('bdi', {}, name)), h('small', {}, note || '')),
      talk.group && !talk.group.invited && iconButton('group', t('members'), () => openGroup(session, talk, { left: groupLeft }))]));
    parts.composer.allow(silence(talk));
    parts.lane.textContent = lane;
    parts.lane.hidden = !lane;
    drawInvite(talk);
  });

  function drawInvite(talk) {
    const invited = Boolean(talk.group?.invited);
    if (parts.invite.hidden !== invited) return;
    parts.invite.hidden = !invited;
    parts.invite.replaceChildren(h('span', {}, t('invited.to', { name: store.name(talk) })),
      h('button', { type: 'button', class: 'primary', onclick: () => join(session.groupName(talk.key)) }, t('accept')),
      h('button', { type: 'button', onclick: async () => { await run('leavegroup', session.groupName(talk.key)); groupLeft(); } }, t('decline')));
  }

  /** What is shown of the current conversation was looked at, if somebody is here. */
  function looked() {
    if (!store.current || !store.isSeen()) return;
    store.seen(store.current);
  }
  store.isSeen = () => !document.hidden && document.hasFocus() && parts.messages.isAtEnd && (node.dataset.screen === 'talk' || !narrow.matches);
  const narrow = matchMedia('(max-width: 720px)');

  async function run(command, rest) {
    try {
      const reply = await session.ask(command, rest);
      if (reply.status !== 'OK') say(errorText(reply));
      return reply;
    } catch (error) {
      if (!(error instanceof Lost)) throw error;
      say(t('offline.short'));
      return {};
    }
  }

  function say(text) {
    toast.textContent = text;
    toast.hidden = false;
    clearTimeout(say.timer);
    say.timer = setTimeout(() => { toast.hidden = true; }, 6000);
  }

  async function groupLeft() {
    close();
    await session.refreshGroups();
  }

  async function enterGroup(command, rest, name) {
    const reply = await run(command, rest);
    if (reply.status !== 'OK') return reply;
    if (reply.pending) {
      say(t('pending'));
      return reply;
    }
    await session.refreshGroups();
    const key = name.includes('@') ? `#${name}` : `#${name}@${store.me.realm}`;
    const talk = store.talk(key);
    talk.hasOlder = true;
    open(talk);
    return reply;
  }
  const join = (name) => enterGroup('joingroup', name, name.replace(/^#/, ''));
  const make = (name, policy) => enterGroup('addgroup', `${name} ${policy}`, name);

  function groupForm() {
    openGroupForm((name, what) => (what === 'join' ? join(`#${name}`) : make(name, what)));
  }

  function addRealm(realm = '', key = '') {
    openRealmForm(session, realm, async (id) => {
      const reply = await run('connectedrealm');
      if (reply.realms) store.realms = reply.realms;
      store.refreshed();
      open(store.talk(key || `@${id}`));
    });
  }

  function palette(start = '') {
    openPalette(session, { open, join, make, addRealm }, start);
  }

  function search() {
    openSearch(session, {
      reveal: async (talk, id) => {
        await open(talk, { focus: false });
        if (!await parts.messages.reveal(id)) say(t('search.gone'));
      },
    });
  }

  function dropTarget(talk) {
    const has = (event) => event.dataTransfer?.types.includes('Files') && store.current;
    const shown = (isShown) => { parts.drop.hidden = !isShown; };
    talk.addEventListener('dragover', (event) => { if (has(event)) { event.preventDefault(); shown(true); } });
    talk.addEventListener('dragleave', (event) => { if (!talk.contains(event.relatedTarget)) shown(false); });
    talk.addEventListener('drop', (event) => {
      if (!has(event)) return;
      event.preventDefault();
      shown(false);
      parts.composer.send([...event.dataTransfer.files]);
    });
  }

  /** The connection is there (0) or is tried again in so many milliseconds. */
  function connected(up, wait = 0) {
    clearInterval(countdown);
    banner.hidden = up;
    node.classList.toggle('is-offline', !up);
    if (up) return;
    const until = Date.now() + wait;
    // The seconds are for those who see them: nobody wants them read out.
    const text = h('span', { 'aria-hidden': 'true' });
    const draw = () => {
      const left = Math.ceil((until - Date.now()) / 1000);
      const waiting = session.outbox.waiting;
      text.textContent = [left > 0 ? t('offline.wait', { n: left }) : t('connecting'), waiting ? t('offline.queued', { n: waiting }) : '']
        .filter(Boolean).join(' ');
    };
    draw();
    countdown = setInterval(draw, 500);
    banner.replaceChildren(icon('warn'), h('span', {}, t('offline')), text, h('button', { type: 'button', onclick: () => session.link.hurry() }, t('offline.now')));
  }

  function step(by) {
    const all = parts.list.shown().flat();
    const at = all.indexOf(store.current);
    const next = all[at < 0 ? 0 : at + by];
    if (next) open(next);
  }

  function keys(event) {
    const dialog = document.querySelector('dialog[open]');
    if (dialog && !dialog.classList.contains('search')) return;
    const isTyping = /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName);
    const letter = event.key.toLowerCase();
    if ((event.ctrlKey || event.metaKey) && letter === 'k') {
      dialog?.close();
      palette();
    } else if (dialog) return;
    else if (event.altKey && event.key === 'ArrowUp') step(-1);
    else if (event.altKey && event.key === 'ArrowDown') step(1);
    else if (event.altKey && letter === 'a') {
      const next = store.sorted().find((talk) => talk.unread.size && talk !== store.current);
      if (next) open(next);
    } else if (event.key === 'Escape' && store.current) leave();
    else if (isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
    else if (event.key === '/') search();
    else if (event.key === '?') openHelp();
    else return;
    event.preventDefault();
  }

  let heard = [];
  const announceHeard = oncePerFrame(() => {
    const last = heard.at(-1);
    if (!last) return;
    announce(heard.length > 3 ? t('heard.n', { n: heard.length }) : heard.map(({ name, text }) => `${name}: ${text}`).join('. ').slice(0, 400));
    heard = [];
  });

  const listen = (target, event, run_) => target.addEventListener(event, run_, { signal });
  const title = oncePerFrame(() => {
    const { unread } = store;
    document.title = `${unread ? `(${unread}) ` : ''}Antar`;
  });
  listen(store, 'list', () => { parts.list.draw(); title(); drawHead(); });
  listen(store, 'items', ({ detail }) => { if (detail === store.current) parts.messages.draw(); });
  listen(store, 'heard', ({ detail }) => { heard.push(detail.item); announceHeard(); });
  listen(session, 'state', ({ detail }) => connected(detail === 0, detail));
  listen(session, 'ready', () => {
    if (!store.current) return;
    drawHead();
    session.open(store.current);
  });
  listen(document, 'keydown', keys);
  listen(document, 'visibilitychange', looked);
  listen(window, 'focus', looked);
  // Without a connection even the page would not come back.
  listen(window, 'beforeunload', (event) => { if (files.isBusy || session.outbox.waiting) event.preventDefault(); });
  // A file that misses the conversation is not opened in place of the page.
  for (const name of ['dragover', 'drop']) listen(window, name, (event) => event.preventDefault());

  build();
  connected(isUp);
  return {
    node,
    end: () => { abort.abort(); clearInterval(countdown); parts.messages.end(); files.clear(); },
    shown: () => (store.current ? parts.composer.focus() : parts.list.focus()),
  };
}
