// The language of the page. Words are in words.js; here it is only known which are to be shown.

import { WORDS } from './words.js';

const KEY = 'antar.lang';
export const LANGS = { en: 'English', id: 'Indonesia' };

let current = localStorage.getItem(KEY) ?? (navigator.language.startsWith('id') ? 'id' : 'en');
if (!LANGS[current]) current = 'en';
document.documentElement.lang = current;

/** The language that is shown. */
export function lang() {
  return current;
}

/** Shows another one from the next look at a word on. */
export function setLang(next) {
  current = next;
  localStorage.setItem(KEY, next);
  document.documentElement.lang = next;
}

/** The words for `key`, with `{name}` replaced by what `values` says. */
export function t(key, values = {}) {
  const words = WORDS[current][key] ?? WORDS.en[key] ?? key;
  return words.replace(/\{(\w+)\}/g, (_, name) => values[name] ?? '');
}

/** What an error of the server means; its own words if it is one that this page does not know. */
export function errorText(reply) {
  const known = WORDS[current][`error.${reply.code}`] ?? WORDS.en[`error.${reply.code}`];
  return known ?? reply.detail ?? reply.message ?? reply.code;
}
