// Light or dark: what the system says, or what was chosen here.

const KEY = 'antar.theme';
const system = matchMedia('(prefers-color-scheme: dark)');

/** Whether the page is dark now. */
export function isDark() {
  const chosen = localStorage.getItem(KEY);
  return chosen ? chosen === 'dark' : system.matches;
}

/** Shows what was chosen. */
export function applyTheme() {
  document.documentElement.dataset.theme = isDark() ? 'dark' : 'light';
}

/** The other one from now on. */
export function toggleTheme() {
  localStorage.setItem(KEY, isDark() ? 'light' : 'dark');
  applyTheme();
}

system.addEventListener('change', applyTheme);
