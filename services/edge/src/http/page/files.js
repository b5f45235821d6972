// Files over HTTP: uploads with their progress, and pictures and other files that were received.

import { uuidv7 } from './net.js';
import { dashed } from './store.js';
import { errorText, t } from './i18n.js';
import { size } from './format.js';

/** Types that are shown; the server finds the type in the file's bytes. */
const PICTURES = new Set(['image/png', 'image/jpeg', 'image/gif', 'image/webp']);
/** Pictures larger than this are fetched only when somebody asks for them. */
const SHOWN_BYTES_MAX = 8_000_000;
/** Pictures kept in memory. */
const KEPT_MAX = 60;

/** Whether a file is shown as a picture. */
export function isPicture(file) {
  return PICTURES.has(file.type) && file.size <= SHOWN_BYTES_MAX;
}

export class Files {
  #urls = new Map();
  #requests = new Map();
  #queue = Promise.resolve();
  /** What the connection was lost for: it is tried again with the next one. */
  #lost = new Map();

  constructor(session) {
    this.session = session;
    session.addEventListener('ready', () => {
      const lost = [...this.#lost];
      this.#lost.clear();
      for (const [item, talk] of lost) {
        if (item.isLocal && item.state === 'failed') this.retry(talk, item);
        else if (!item.isLocal) {
          // It had arrived, and its answer had not.
          item.upload = null;
          session.store.touched(talk);
        }
      }
    });
  }

  /** Sends files to a conversation, one after the other. */
  send(talk, files) {
    for (const file of files) {
      const { store, limits } = this.session;
      const name = file.name || `${t('picture')}.png`;
      const upload = { blob: file, name, size: file.size, type: file.type, done: 0 };
      const item = store.say(talk.key, { id: uuidv7(), text: name, upload });
      const most = limits.file_bytes_max;
      if (most && file.size > most) this.#failed(talk, item, t('file.large', { size: size(most) }), false);
      else if (file.size === 0) this.#failed(talk, item, t('file.empty'), false);
      else this.#enqueue(talk, item);
    }
  }

  #enqueue(talk, item) {
    this.#queue = this.#queue.then(() => (item.upload.isGone ? null : this.#upload(talk, item)));
  }

  #receivers(talk) {
    if (talk.kind === 'group') return this.session.groupName(talk.key);
    return talk.key.split(',').map((one) => this.session.store.short(one)).join(',');
  }

  #upload(talk, item) {
    const { session } = this;
    const { upload } = item;
    return new Promise((resolve) => {
      const request = new XMLHttpRequest();
      const query = new URLSearchParams({ to: this.#receivers(talk), name: upload.name, id: dashed(item.id) });
      request.open('POST', `files?${query}`);
      request.setRequestHeader('Authorization', `Bearer ${session.token}`);
      request.setRequestHeader('Content-Type', 'application/octet-stream');
      request.responseType = 'json';
      request.upload.onprogress = ({ loaded }) => {
        upload.done = loaded;
        session.store.touched(talk);
      };
      request.onload = () => {
        const reply = request.response ?? {};
        if (reply.status === 'OK') this.#stored(talk, item, reply);
        else this.#failed(talk, item, reply.code ? errorText(reply) : t('file.failed', { why: request.status }));
      };
      request.onerror = () => {
        this.#lost.set(item, talk);
        this.#failed(talk, item, t('file.lost'));
      };
      request.onabort = () => session.store.drop(talk, item);
      request.onloadend = () => {
        this.#requests.delete(item);
        resolve();
      };
      this.#requests.set(item, request);
      request.send(upload.blob);
    });
  }

  #stored(talk, item, reply) {
    const { upload } = item;
    item.file ??= reply.file;
    if (isPicture(item.file)) this.#keep(item.file.id, URL.createObjectURL(upload.blob));
    item.upload = null;
    item.isLocal = false;
    this.session.store.reached(talk, item, 'stored', reply.unknown ? errorText({ code: 'no-such-user' }) : '');
    this.session.look(talk);
  }

  #failed(talk, item, reason, canRetry = true) {
    item.upload.canRetry = canRetry;
    this.session.store.reached(talk, item, 'failed', reason);
  }

  /** Tries again, under the same id: what arrived after all is not doubled. */
  retry(talk, item) {
    this.#lost.delete(item);
    item.upload.done = 0;
    item.reason = '';
    this.session.store.reached(talk, item, 'queued');
    this.#enqueue(talk, item);
  }

  /** Ends an upload, and forgets it. */
  discard(talk, item) {
    item.upload.isGone = true;
    this.#lost.delete(item);
    const request = this.#requests.get(item);
    if (request) request.abort();
    else this.session.store.drop(talk, item);
  }

  /** Whether something is on its way that would be lost with the page. */
  get isBusy() {
    return this.#requests.size > 0;
  }

  async #fetch(id) {
    const response = await fetch(`files/${id}`, { headers: { Authorization: `Bearer ${this.session.token}` } });
    if (!response.ok) throw new Error(`${response.status}`);
    return response.blob();
  }

  #keep(id, url) {
    this.#urls.set(id, url);
    if (this.#urls.size <= KEPT_MAX) return;
    const [[oldest, gone]] = this.#urls;
    this.#urls.delete(oldest);
    URL.revokeObjectURL(gone);
  }

  /** A picture's address in this page. */
  async picture(file) {
    if (!this.#urls.has(file.id)) this.#keep(file.id, URL.createObjectURL(await this.#fetch(file.id)));
    return this.#urls.get(file.id);
  }

  /** Hands a file to the browser, to be saved. */
  async save(file) {
    const url = URL.createObjectURL(await this.#fetch(file.id));
    const anchor = document.createElement('a');
    anchor.href = url;
    anchor.download = file.name;
    anchor.click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
  }

  /** Forgets all pictures. */
  clear() {
    for (const url of this.#urls.values()) URL.revokeObjectURL(url);
    this.#urls.clear();
    for (const request of this.#requests.values()) request.abort();
  }
}
