// What stands in a message: a text, a file that came, or one that is on its way.

import { h, icon, openDialog, dialogHead } from '../dom.js';
import { parts, size } from '../format.js';
import { isPicture } from '../files.js';
import { t } from '../i18n.js';

/** Only these become links. */
const SCHEMES = new Set(['http:', 'https:']);

function link(text) {
  let url;
  try {
    url = new URL(text);
  } catch {
    return text;
  }
  if (!SCHEMES.has(url.protocol)) return text;
  return h('a', { href: url.href, target: '_blank', rel: 'noopener noreferrer nofollow' }, text);
}

/** A text, whatever it says, as text. */
export function textBody(text, me) {
  return h('span', { class: 'text', dir: 'auto' }, parts(text, me).map((part) => {
    if (part.kind === 'link') return link(part.text);
    if (part.kind === 'text') return part.text;
    return h('mark', { class: part.kind }, part.text);
  }));
}

function fileLine(name, note, action) {
  return h('span', { class: 'file' }, icon('file'),
    h('span', { class: 'file-name' }, h('bdi', {}, name), h('small', {}, note)), action);
}

function failed(node, button) {
  node.textContent = t('file.gone');
  button.disabled = false;
}

/** A file: small, if it is a picture; a click shows all of it or saves it. */
export function fileBody(file, files) {
  const note = h('small', { role: 'status' });
  const save = h('button', {
    type: 'button', class: 'link save',
    onclick: async () => {
      save.disabled = true;
      try {
        await files.save(file);
        save.disabled = false;
      } catch {
        failed(note, save);
      }
    },
  }, t('file.save'));
  if (!isPicture(file)) return h('span', {}, fileLine(file.name, size(file.size), save), note);
  const img = h('img', { class: 'picture', alt: t('picture.alt', { name: file.name }), decoding: 'async' });
  const button = h('button', { type: 'button', class: 'picture-button', title: file.name, onclick: () => lightbox(file, img.src, files) }, img);
  const load = () => files.picture(file).then((url) => { img.src = url; }, () => {
    button.replaceWith(fileLine(file.name, size(file.size), save), note);
    note.textContent = t('file.gone');
  });
  // Only what is looked at is fetched.
  const seen = new IntersectionObserver((entries) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    seen.disconnect();
    load();
  }, { rootMargin: '400px' });
  seen.observe(button);
  return button;
}

function lightbox(file, src, files) {
  if (!src) return;
  openDialog(file.name, { class: 'lightbox' },
    dialogHead(file.name, t('close')),
    h('img', { src, alt: t('picture.alt', { name: file.name }) }),
    h('button', { type: 'button', class: 'link', onclick: () => files.save(file).catch(() => {}) }, t('file.save')));
}

/** A file that is being sent. */
export function uploadBody(item, files, talk) {
  const { upload } = item;
  const isGoing = item.state === 'queued';
  const percent = upload.size ? Math.floor((upload.done / upload.size) * 100) : 0;
  const stop = isGoing && h('button', { type: 'button', class: 'link', onclick: () => files.discard(talk, item) }, t('cancel'));
  return h('span', { class: 'uploading' },
    fileLine(upload.name, isGoing ? `${size(upload.done)} / ${size(upload.size)}` : size(upload.size), stop),
    isGoing && h('progress', { max: 100, value: percent, 'aria-label': t('file.sending', { name: upload.name }) }));
}
