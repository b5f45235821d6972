// Log in, or make an account.

import { h, iconButton } from '../dom.js';
import { Lost } from '../net.js';
import { isDark, toggleTheme } from '../prefs.js';
import { LANGS, errorText, lang, setLang, t } from '../i18n.js';

function field(label, props, hint = '') {
  const id = `login-${props.name}`;
  return h('div', { class: 'field' },
    h('label', { for: id }, label),
    h('input', { id, required: true, autocapitalize: 'none', spellcheck: false, ...props, 'aria-describedby': hint ? `${id}-hint` : null }),
    hint && h('small', { id: `${id}-hint` }, hint));
}

/** The choice of a language. */
export function langSelect(redraw) {
  const select = h('select', { 'aria-label': t('lang'), onchange: () => { setLang(select.value); redraw(); } },
    Object.entries(LANGS).map(([code, name]) => h('option', { value: code, selected: code === lang() }, name)));
  return select;
}

/** A button for light and dark. */
export function themeButton() {
  const button = iconButton('moon', t('theme'), () => {
    toggleTheme();
    button.setAttribute('aria-pressed', isDark());
  }, { 'aria-pressed': String(isDark()) });
  return button;
}

export function loginView({ limits, note, isUp, redraw, request, loggedIn }) {
  let known = limits;
  let isNew = false;
  const error = h('p', { class: 'form-error', role: 'alert' }, note);
  const state = h('p', { class: 'form-note', role: 'status', hidden: isUp }, t('connecting'));
  const fields = h('div', {});
  const submit = h('button', { type: 'submit', class: 'primary' });
  const other = h('button', { type: 'button', class: 'link', onclick: () => { isNew = !isNew; draw(); fields.querySelector('input').focus(); } });
  const title = h('p', { class: 'tagline' });

  function draw() {
    const focused = fields.contains(document.activeElement) ? document.activeElement.name : '';
    const kept = Object.fromEntries([...fields.querySelectorAll('input')].map(({ name, value }) => [name, value]));
    title.textContent = known.name && known.name !== known.realm ? `${known.name} · ${known.realm}` : known.realm ?? t('tagline');
    const user = field(t('user'), { name: 'user', autocomplete: 'username', maxLength: 32, value: kept.user ?? '' }, isNew ? t('user.hint') : '');
    const password = field(t('password'), {
      name: 'password', type: 'password', autocomplete: isNew ? 'new-password' : 'current-password', value: kept.password ?? '',
    });
    fields.replaceChildren(user, password, ...(isNew ? [
      field(t('name'), { name: 'name', autocomplete: 'name', autocapitalize: 'words', value: kept.name ?? '' }),
      field(t('country'), { name: 'country', autocomplete: 'country-name', autocapitalize: 'words', value: kept.country ?? '' }),
      known.register === 'invite' ? field(t('invite'), { name: 'invite', autocomplete: 'off' }) : '',
    ] : []));
    if (focused) fields.querySelector(`[name=${focused}]`)?.focus();
    submit.textContent = t(isNew ? 'register' : 'login');
    other.textContent = t(isNew ? 'login.instead' : 'register.instead');
    other.hidden = !known.register || known.register === 'closed';
  }

  function line(data) {
    const value = (name) => String(data.get(name) ?? '').trim();
    const password = String(data.get('password') ?? '');
    if (/\s/.test(password) || /\s/.test(value('user'))) return { problem: t('password.space') };
    if (!isNew) return { line: `auth ${value('user')} ${password}` };
    // A country is one word of the protocol.
    const words = [value('user'), password, value('country').replace(/\s+/g, '-'), value('name').replace(/\s+/g, ' ')];
    const invite = value('invite');
    return { line: `register ${words.join(' ')}${invite ? ` invite=${invite}` : ''}` };
  }

  const form = h('form', { class: 'login-card', 'aria-labelledby': 'login-title' },
    h('img', { src: 'icon.svg', alt: '', class: 'logo', width: 56, height: 56 }),
    h('h1', { id: 'login-title' }, 'Antar'), title, fields, error, state, submit, other);
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    const { line: command, problem } = line(new FormData(form));
    error.textContent = problem ?? '';
    if (problem) return;
    submit.disabled = true;
    try {
      const reply = await request(command);
      if (reply.status === 'OK') loggedIn(reply.tokenid);
      else {
        error.textContent = errorText(reply);
        fields.querySelector('input[type=password]').select();
      }
    } catch (failed) {
      if (!(failed instanceof Lost)) throw failed;
      error.textContent = t('login.lost');
    } finally {
      submit.disabled = false;
    }
  });
  draw();

  const node = h('main', { class: 'login' },
    form, h('footer', { class: 'login-foot' }, langSelect(redraw), themeButton()));
  return {
    node,
    shown: () => fields.querySelector('input').focus(),
    limits: (next) => { known = next; draw(); },
    link: (up) => { state.hidden = up; },
  };
}
