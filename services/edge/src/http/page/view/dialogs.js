// Smaller windows: shortcuts, who is in a group, a new group, and another realm.

import { avatar, dialogHead, h, openDialog } from '../dom.js';
import { Lost } from '../net.js';
import { errorText, t } from '../i18n.js';

const SHORTCUTS = [
  [['Ctrl', 'K'], 'key.palette'], [['/'], 'key.search'], [['Enter'], 'key.send'], [['↑'], 'key.up'], [['Tab'], 'key.tab'], [['Esc'], 'key.esc'],
  [['Alt', '↑'], 'key.prev'], [['Alt', '↓'], 'key.next'], [['Alt', 'A'], 'key.unread'], [['?'], 'key.help'],
];

export function openHelp() {
  return openDialog(t('help'), { class: 'help' }, dialogHead(t('help'), t('close')),
    h('dl', {}, SHORTCUTS.map(([keys, what]) => h('div', {},
      h('dt', {}, keys.map((key) => h('kbd', {}, key))), h('dd', {}, t(what))))),
    h('h3', {}, t('help.ticks')),
    h('dl', {}, ['queued', 'stored', 'delivered', 'read', 'failed'].map((state) => h('div', {},
      h('dt', {}, t(`state.${state}`)), h('dd', {}, t(`state.${state}.hint`))))));
}

/** A form in a dialog; `act` returns a reply, and what is wrong is said in the form. */
function openForm(title, fields, label, act) {
  const problem = h('p', { class: 'form-error', role: 'alert' });
  const submit = h('button', { type: 'submit', class: 'primary' }, label);
  const form = h('form', {}, fields, problem, submit);
  const dialog = openDialog(title, { class: 'form-dialog' }, dialogHead(title, t('close')), form);
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    submit.disabled = true;
    problem.textContent = '';
    try {
      const data = Object.fromEntries([...new FormData(form)].map(([name, value]) => [name, String(value).trim()]));
      const reply = await act(data);
      if (reply.status === 'OK') dialog.close();
      else problem.textContent = errorText(reply);
    } catch (error) {
      if (!(error instanceof Lost)) throw error;
      problem.textContent = t('offline.short');
    } finally {
      submit.disabled = false;
    }
  });
  form.querySelector('input')?.focus();
  return dialog;
}

function field(label, props) {
  return h('label', { class: 'field' }, label, h('input', { required: true, autocomplete: 'off', autocapitalize: 'none', spellcheck: false, ...props }));
}

/** Adds a realm; then `done` with its id. */
export function openRealmForm(session, realm, done) {
  openForm(t('add.realms'), [
    h('p', { class: 'form-note' }, t('realm.hint')),
    field(t('realm'), { name: 'realm', value: realm, maxLength: 32, pattern: '[a-z0-9][a-z0-9_\\-]*' }),
    field(t('host'), { name: 'host', value: '127.0.0.1' }),
    field(t('port'), { name: 'port', value: '4001', inputMode: 'numeric', pattern: '[0-9]+' }),
  ], t('add'), async ({ realm: id, host, port }) => {
    const reply = await session.ask('addrealm', `${id} ${host} ${port}`);
    if (reply.status === 'OK') done(id);
    return reply;
  });
}

/** Makes or joins a group; `act` gets its name and what is chosen. */
export function openGroupForm(act) {
  openForm(t('add.groups'), [
    field(t('group.name'), { name: 'name', maxLength: 65, pattern: '#?[a-z0-9][a-z0-9_@\\-]*', placeholder: '#' }),
    h('fieldset', {}, h('legend', {}, t('group.what')),
      ['join', 'open', 'invite'].map((what, at) => h('label', { class: 'choice' },
        h('input', { type: 'radio', name: 'what', value: what, checked: at === 0 }), t(`group.${what}`)))),
  ], t('go'), ({ name, what }) => act(name.replace(/^#/, ''), what));
}

/** Who is in a group, and what its members and its owner can do. */
export async function openGroup(session, talk, { left }) {
  const name = session.groupName(talk.key);
  const isOwner = talk.group?.owner === session.store.me.address;
  const problem = h('p', { class: 'form-error', role: 'alert' });
  const note = h('p', { class: 'form-note', role: 'status' });
  const list = h('ul', { class: 'members' });
  let known = {};
  const dialog = openDialog(session.store.name(talk), { class: 'group' },
    dialogHead(session.store.name(talk), t('close')), talk.group?.topic && h('p', { class: 'topic' }, talk.group.topic), problem, note);

  async function run(command, rest) {
    problem.textContent = '';
    note.textContent = '';
    try {
      const reply = await session.ask(command, rest);
      if (reply.status !== 'OK') problem.textContent = errorText(reply);
      if (reply.pending) note.textContent = t('pending');
      return reply;
    } catch (error) {
      if (!(error instanceof Lost)) throw error;
      problem.textContent = t('offline.short');
      return {};
    }
  }

  async function draw() {
    const reply = await run('members', name);
    if (reply.members) known = reply;
    show();
    await session.lookWhoIsThere(reply.members ?? []);
    show();
  }

  function show() {
    const { store } = session;
    const { members = [], owner } = known;
    list.replaceChildren(...members.map((address) => h('li', {},
      h('span', { class: 'avatar-box' }, avatar(address, 'user', store.people.get(address) ?? address),
        store.online.get(address) && h('span', { class: 'dot', title: t('online') })),
      h('span', { class: 'choice-text' }, h('bdi', {}, store.short(address)),
        h('small', {}, [address === owner ? t('owner') : store.people.get(address), store.online.get(address) && t('online')].filter(Boolean).join(' · '))),
      isOwner && address !== owner && h('button', {
        type: 'button', class: 'link',
        onclick: async () => {
          const reply = await run('kickgroup', `${name} ${store.short(address)}`);
          if (reply.status === 'OK' && !reply.pending) draw();
        },
      }, t('kick')))));
  }

  function line(label, key, act, maxLength) {
    const input = h('input', { 'aria-label': label, placeholder: label, maxLength, autocomplete: 'off' });
    return h('form', {
      class: 'inline', onsubmit: async (event) => {
        event.preventDefault();
        if (!input.value.trim()) return;
        const reply = await act(input.value.trim());
        if (reply.status !== 'OK') return;
        input.value = '';
        if (!reply.pending) await draw();
        session.refreshGroups();
      },
    }, input, h('button', { type: 'submit' }, t(key)));
  }

  dialog.append(h('h3', {}, t('members')), list);
  if (isOwner) {
    dialog.append(line(t('invite.who'), 'invite.do', (who) => run('invitegroup', `${name} ${who}`), 65),
      line(t('topic'), 'topic.set', (text) => run('topic', `${name} ${text}`), 512));
  }
  dialog.append(h('button', {
    type: 'button', class: 'danger',
    onclick: async () => {
      const reply = await run('leavegroup', name);
      if (reply.status !== 'OK') return;
      dialog.close();
      left();
    },
  }, t('leave')));
  // Who comes and goes is pushed. The buttons stay as they are: one of them may have the focus.
  const online = () => list.contains(document.activeElement) || show();
  session.addEventListener('presence', online);
  dialog.addEventListener('close', () => session.removeEventListener('presence', online));
  await draw();
}
