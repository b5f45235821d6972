// Times, sizes and parts of texts, as people read them.

import { lang, t } from './i18n.js';

const formats = new Map();

function format(name, options) {
  const key = `${lang()} ${name}`;
  if (!formats.has(key)) formats.set(key, new Intl.DateTimeFormat(lang(), options));
  return formats.get(key);
}

/** The time of day. */
export function clock(ms) {
  return format('clock', { hour: '2-digit', minute: '2-digit', hourCycle: 'h23' }).format(ms);
}

/** A day that can be compared with another. */
export function dayOf(ms) {
  const day = new Date(ms);
  return `${day.getFullYear()}-${day.getMonth()}-${day.getDate()}`;
}

/** The day, in words. */
export function dayName(ms) {
  if (dayOf(ms) === dayOf(Date.now())) return t('today');
  if (dayOf(ms) === dayOf(Date.now() - 86_400_000)) return t('yesterday');
  return format('day', { weekday: 'long', day: 'numeric', month: 'long', year: 'numeric' }).format(ms);
}

/** For the list of conversations: the time, or the day if that is not today. */
export function brief(ms) {
  if (!ms) return '';
  if (dayOf(ms) === dayOf(Date.now())) return clock(ms);
  return format('brief', { day: 'numeric', month: 'short' }).format(ms);
}

/** All of it. */
export function full(ms) {
  return format('full', { dateStyle: 'full', timeStyle: 'medium' }).format(ms);
}

/** How long something lasts: seconds as `14 min`. */
export function lasting(seconds) {
  if (seconds < 60) return t('seconds', { n: Math.max(0, Math.round(seconds)) });
  if (seconds < 3600) return t('minutes', { n: Math.floor(seconds / 60) });
  if (seconds < 172_800) return t('hours', { n: Math.floor(seconds / 3600) });
  return t('days', { n: Math.floor(seconds / 86_400) });
}

/** Bytes as `1.2 MB`. */
export function size(bytes) {
  const units = ['B', 'kB', 'MB', 'GB'];
  let at = 0;
  let value = bytes;
  while (value >= 1000 && at < units.length - 1) {
    value /= 1000;
    at += 1;
  }
  return `${new Intl.NumberFormat(lang(), { maximumFractionDigits: at ? 1 : 0 }).format(value)} ${units[at]}`;
}

/** How a realm's lane is: `waiting 14 min, 37 queued`; empty if there is nothing to say. */
export function laneText(realm) {
  if (!realm) return '';
  if (realm.blocked) return t('lane.blocked');
  if (realm.state === 'up' && !realm.queued) return '';
  const since = realm.since ? (Date.now() - Date.parse(realm.since)) / 1000 : realm.oldest_s ?? 0;
  const words = { n: realm.queued ?? 0, time: lasting(since) };
  if (realm.state === 'paused') return t('lane.paused', words);
  return t(realm.state === 'up' ? 'lane.sending' : 'lane.waiting', words);
}

/** Cuts a text into plain parts, links and mentions; those of `me` (`@messi`, `@messi@realm1`) apart. */
export function parts(text, me) {
  const found = [];
  let at = 0;
  for (const match of text.matchAll(/https?:\/\/[^\s<>"']+|@[a-z0-9][a-z0-9_-]{0,31}(?:@[a-z0-9][a-z0-9_-]{0,31})?/g)) {
    let [word] = match;
    let kind = 'link';
    if (word.startsWith('@')) {
      const before = text[match.index - 1];
      if (before && /[\p{L}\p{N}_@]/u.test(before)) continue;
      kind = [me.user, me.address].includes(word.slice(1)) ? 'me' : 'mention';
    } else {
      word = word.replace(/[.,;:!?)\]]+$/, '');
    }
    if (match.index > at) found.push({ kind: 'text', text: text.slice(at, match.index) });
    found.push({ kind, text: word });
    at = match.index + word.length;
  }
  if (at < text.length) found.push({ kind: 'text', text: text.slice(at) });
  return found;
}

/** Whether a text speaks to `me`. */
export function mentions(text, me) {
  return text.includes(`@${me.user}`) && parts(text, me).some((part) => part.kind === 'me');
}
