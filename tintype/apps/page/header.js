// Name, the two views, the theme.
import {html, useState} from './html.js';
import {set, useStore} from './store.js';
import {Icon} from './icons.js';

const isDarkNow = () =>
  (document.documentElement.dataset.theme ?? (matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light')) === 'dark';

function ThemeToggle() {
  const [isDark, setDark] = useState(isDarkNow());
  const flip = () => {
    const chosen = isDark ? 'light' : 'dark';
    document.documentElement.dataset.theme = chosen;
    try {
      localStorage.setItem('tintype.theme', chosen);
    } catch {
      // kept for this visit alone
    }
    setDark(!isDark);
  };
  const word = isDark ? 'Light colours' : 'Dark colours'; // what it will do
  return html`<button class="quiet round" type="button" aria-label=${word} title=${word}
    onClick=${flip}><${Icon} name=${isDark ? 'sun' : 'moon'} /></button>`;
}

export function Header() {
  const view = useStore((state) => state.view);
  const tab = (name, word) => html`<button type="button" class="tab" aria-current=${view === name ? 'page' : undefined}
    onClick=${() => set({view: name})}>${word}</button>`;
  return html`<header class="header">
    <h1 class="brand"><img src=${new URL('icon.svg', import.meta.url).href} alt="" width="24" height="24" /> tintype</h1>
    <nav aria-label="Views">${tab('draw', 'Draw')}${tab('pictures', 'Pictures')}</nav>
    <${ThemeToggle} />
  </header>`;
}
