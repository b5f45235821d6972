// Making and finding elements. Data only ever becomes text here: nothing in the page sets innerHTML.

const SVG = 'http://www.w3.org/2000/svg';

/** Outlines of icons, in a box of 24 by 24. */
const ICONS = {
  attach: 'M21 11.500 12.500 20a5.500 5.500 0 0 1-8-8L13 3.500a3.700 3.700 0 0 1 5.500 5.200L10 17.200a1.800 1.800 0 0 1-2.700-2.500L15 7',
  back: 'M15 5l-7 7 7 7',
  clock: 'M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18zM12 7.500V12l3 2',
  close: 'M6 6l12 12M18 6L6 18',
  file: 'M7 3h7l5 5v13H7zM14 3v5h5',
  group: 'M9 11a3.500 3.500 0 1 0 0-7 3.500 3.500 0 0 0 0 7zM2.500 20c0-3.600 2.900-6 6.500-6s6.500 2.400 6.500 6M16 4.300a3.500 3.500 0 0 1 0 6.500M18 14.500c2.100.8 3.500 2.800 3.500 5.500',
  help: 'M9.200 9a2.900 2.900 0 1 1 4.100 2.700c-.9.4-1.300 1-1.300 2v.3M12 17.500v.01M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18z',
  info: 'M12 11v6M12 7.500v.01M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18z',
  leave: 'M14 4h5v16h-5M3.500 12H14M10 8l4 4-4 4',
  moon: 'M20 14.500A8.500 8.500 0 1 1 9.500 4a7 7 0 0 0 10.500 10.500z',
  plus: 'M12 5v14M5 12h14',
  realm: 'M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18zM3 12h18M12 3c2.500 2.500 3.800 5.600 3.800 9s-1.300 6.500-3.800 9c-2.500-2.500-3.800-5.600-3.800-9S9.500 5.500 12 3z',
  search: 'M10.500 4a6.500 6.500 0 1 0 0 13 6.500 6.500 0 0 0 0-13zM20 20l-4.800-4.800',
  send: 'M4 12l16-8-5 16-3.500-6.500z',
  tick: 'M5 12.500l4.500 4.500L19 7.500',
  ticks: 'M2.500 12.500L7 17l9-9.500M11.500 16l1 1 9-9.500',
  warn: 'M12 4l9.500 16.500h-19zM12 10v4.500M12 17.500v.01',
};

/**
 * Makes an element. Properties that begin with `on` are listeners, `class` and names with a dash are attributes, `true` is an
 * attribute without a value, null and false are left out; all others are properties of the element.
 */
export function h(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
    else if (name === 'class' || name === 'role' || name === 'for' || name.includes('-')) {
      node.setAttribute(name, value === true ? '' : value);
    } else if (name === 'data') Object.assign(node.dataset, value);
    else node[name] = value;
  }
  node.append(...present(children));
  return node;
}

/** What there is to be shown of a list; what is null, undefined or false is left out. */
export function present(children) {
  return children.flat().filter((child) => child !== null && child !== undefined && child !== false);
}

/** An icon; it says nothing to a screen reader, the element around it has to. */
export function icon(name, label = '') {
  const svg = document.createElementNS(SVG, 'svg');
  svg.setAttribute('viewBox', '0 0 24 24');
  svg.setAttribute('class', `icon icon-${name}`);
  if (label) {
    svg.setAttribute('role', 'img');
    svg.setAttribute('aria-label', label);
    const title = document.createElementNS(SVG, 'title');
    title.textContent = label;
    svg.append(title);
  } else svg.setAttribute('aria-hidden', 'true');
  const path = document.createElementNS(SVG, 'path');
  path.setAttribute('d', ICONS[name]);
  svg.append(path);
  return svg;
}

/** A button with an icon and a name for those who do not see it. */
export function iconButton(name, label, onclick, props = {}) {
  return h('button', { type: 'button', class: 'icon-button', 'aria-label': label, title: label, onclick, ...props }, icon(name));
}

/** The first letters of a name on one of eight colours that belongs to it. */
export function avatar(key, kind, name = key) {
  let sum = 0;
  for (const letter of key) sum = (sum * 31 + letter.codePointAt(0)) >>> 0;
  const words = name.replace(/^[#@]/, '').split(/[\s._-]+/).filter(Boolean);
  const letters = words.slice(0, 2).map((word) => [...word][0]).join('').toUpperCase();
  const mark = kind === 'realm' ? icon('realm') : kind === 'group' ? '#' : letters || '?';
  return h('span', { class: `avatar c${sum % 8} ${kind}`, 'aria-hidden': 'true' }, mark);
}

/** Says something to those who listen to the page and do not see it. */
export function announce(text) {
  const said = document.getElementById('said');
  if (said) said.textContent = text;
}

/** Opens a dialog that goes away when it is closed, by Esc or a click beside it too. */
export function openDialog(label, props, ...children) {
  const dialog = h('dialog', { 'aria-label': label, ...props }, ...children);
  const before = document.activeElement;
  dialog.addEventListener('click', (event) => event.target === dialog && dialog.close());
  dialog.addEventListener('close', () => {
    dialog.remove();
    if (before?.isConnected && document.activeElement === document.body) before.focus();
  });
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

/** A dialog's first line: what it is, and a way out. */
export function dialogHead(title, closeLabel) {
  return h('header', { class: 'dialog-head' }, h('h2', {}, title),
    iconButton('close', closeLabel, (event) => event.currentTarget.closest('dialog').close()));
}

/** Runs `task` once in the next frame, however often it is asked for. */
export function oncePerFrame(task) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    const run = () => {
      if (!asked) return;
      asked = false;
      task();
    };
    // A page that nobody sees has no frames.
    if (document.hidden) setTimeout(run, 0);
    else requestAnimationFrame(run);
  };
}
