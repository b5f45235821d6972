// The line at the foot of a conversation: a draft for each, files by button and paste, and Enter.

import { h, iconButton } from '../dom.js';
import { t } from '../i18n.js';
import { TEXT_BYTES_MAX, oneLine } from '../outbox.js';

const encoder = new TextEncoder();

export class Composer {
  #talk = null;

  constructor(session, files, { onLeave, onSaid }) {
    this.session = session;
    this.files = files;
    this.onLeave = onLeave;
    this.onSaid = onSaid;
    this.draftKey = `antar.drafts.${session.store.me.address}`;
    try {
      this.drafts = JSON.parse(sessionStorage.getItem(this.draftKey)) ?? {};
    } catch {
      this.drafts = {};
    }
    this.input = h('textarea', {
      id: 'composer', rows: 1, 'aria-label': t('compose'), autocomplete: 'off', enterKeyHint: 'send',
      oninput: () => this.#typed(), onkeydown: (event) => this.#key(event), onpaste: (event) => this.#paste(event),
    });
    this.picker = h('input', { type: 'file', multiple: true, hidden: true, onchange: () => this.#picked() });
    this.attach = iconButton('attach', t('attach'), () => this.picker.click());
    this.button = iconButton('send', t('send'), () => this.#say(), { type: 'submit', class: 'icon-button send' });
    this.problem = h('p', { class: 'form-error', role: 'alert' });
    this.hint = h('p', { class: 'compose-hint', hidden: true });
    this.node = h('form', { class: 'composer', onsubmit: (event) => event.preventDefault() },
      this.problem, this.hint, h('div', { class: 'compose-row' }, this.attach, this.picker, this.input, this.button));
  }

  /** For another conversation; what was begun in the last one stays there. `hint` says why nothing can be said. */
  open(talk, hint = '') {
    this.#talk = talk;
    this.problem.textContent = '';
    this.allow(hint);
    this.input.value = this.drafts[talk.key] ?? '';
    this.input.placeholder = t('compose.to', { name: this.session.store.name(talk) });
    this.#fit();
  }

  /** Lets something be said; or says why that cannot be. What is being typed is not touched. */
  allow(hint) {
    this.hint.textContent = hint;
    this.hint.hidden = !hint;
    this.node.querySelector('.compose-row').hidden = Boolean(hint);
  }

  focus() {
    this.input.focus();
  }

  #fit() {
    this.input.style.height = 'auto';
    this.input.style.height = `${Math.min(this.input.scrollHeight, 160)}px`;
    this.button.disabled = !this.input.value.trim();
  }

  #typed() {
    this.problem.textContent = '';
    const { value } = this.input;
    if (value) this.drafts[this.#talk.key] = value;
    else delete this.drafts[this.#talk.key];
    try {
      sessionStorage.setItem(this.draftKey, JSON.stringify(this.drafts));
    } catch {
      // It is kept as long as the page is.
    }
    this.#fit();
  }

  #key(event) {
    if (event.isComposing) return;
    if (event.key === 'Enter' && !event.shiftKey) {
      event.preventDefault();
      this.#say();
    } else if (event.key === 'ArrowUp' && !this.input.value) {
      const text = this.session.outbox.takeBack(this.#talk);
      if (text === null) return;
      event.preventDefault();
      this.input.value = text;
      this.#typed();
    } else if (event.key === 'Tab' && !event.shiftKey && this.#complete()) {
      event.preventDefault();
    } else if (event.key === 'Escape') {
      event.preventDefault();
      event.stopPropagation();
      this.onLeave();
    }
  }

  /** Completes a name that was begun with `@` before the cursor; false if there is none to complete. */
  #complete() {
    const { value, selectionStart: at, selectionEnd: end } = this.input;
    const begun = /(?:^|\s)@([a-z0-9_-]+)$/.exec(value.slice(0, at))?.[1];
    if (at !== end || !begun) return false;
    const { store } = this.session;
    // Who is spoken with here first; then whoever is known.
    const known = [this.#talk.key, ...this.#talk.items.map((item) => item.from).reverse(), ...store.people.keys()];
    const found = known.find((key) => /^[a-z0-9]/.test(key) && !key.includes(',') && key !== store.me.address && key.startsWith(begun));
    if (!found) return false;
    this.input.setRangeText(`${found.split('@')[0].slice(begun.length)} `, at, at, 'end');
    this.#typed();
    return true;
  }

  #say() {
    const text = oneLine(this.input.value);
    if (!text) return;
    const bytes = encoder.encode(text).length;
    if (bytes > TEXT_BYTES_MAX) {
      this.problem.textContent = t('too.long', { n: bytes, max: TEXT_BYTES_MAX });
      return;
    }
    this.input.value = '';
    this.#typed();
    this.session.outbox.say(this.#talk, text);
    this.onSaid();
  }

  #paste(event) {
    const found = [...event.clipboardData.files];
    if (found.length === 0) return;
    event.preventDefault();
    this.send(found);
  }

  #picked() {
    this.send([...this.picker.files]);
    this.picker.value = '';
  }

  /** Sends files to the conversation. */
  send(found) {
    if (!this.#talk || !this.hint.hidden) return;
    this.files.send(this.#talk, found);
    this.onSaid();
    this.focus();
  }
}
