// The page: a form to log in, or the conversations of somebody who has.

import { Lost } from './net.js';
import { Session, keepToken, keptToken, link } from './session.js';
import { applyTheme } from './prefs.js';
import { t } from './i18n.js';
import { loginView } from './view/login.js';
import { chatView } from './view/chat.js';

const app = document.getElementById('app');
const connection = link();
let view = null;
/** Limits of the server, by `capabilities`; empty until they are known. */
let limits = {};

applyTheme();
connection.addEventListener('up', () => view?.link?.(true));
connection.addEventListener('down', () => view?.link?.(false));

/** Waits until there is a connection, then asks; over a connection that is lost as often as it takes. */
async function ask(line) {
  for (;;) {
    if (!connection.isUp) await new Promise((resolve) => connection.addEventListener('up', resolve, { once: true }));
    try {
      return await connection.request(line);
    } catch (error) {
      if (!(error instanceof Lost)) throw error;
    }
  }
}

function show(next) {
  view?.end?.();
  view = next;
  app.replaceChildren(next.node);
  next.shown?.();
}

function showLogin(note = '') {
  document.title = 'Antar';
  show(loginView({
    limits,
    note,
    isUp: connection.isUp,
    redraw: () => showLogin(note),
    // No second try after a lost connection: whoever asks sees that, and asks again.
    request: (line) => connection.request(line),
    loggedIn: (token) => enter(token),
  }));
}

async function enter(token) {
  const who = await ask(`whoami ${token}`);
  if (who.status !== 'OK') {
    keepToken(null);
    showLogin(t('login.ended'));
    return;
  }
  keepToken(token);
  const session = new Session(connection, token, who, limits);
  session.addEventListener('ended', () => showLogin(t('login.ended')), { once: true });
  show(chatView(session, { isUp: connection.isUp }));
  session.start();
}

async function begin() {
  const token = keptToken();
  if (!token) showLogin();
  connection.open();
  limits = await ask('capabilities');
  if (token) await enter(token);
  else if (!keptToken()) view?.limits?.(limits);
}

begin();
