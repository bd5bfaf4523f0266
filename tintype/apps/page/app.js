// The whole page: header, the two views, and what lies over them.
import {html, useEffect, useState} from './html.js';
import {now, say, set, useStore} from './store.js';
import {Header} from './header.js';
import {Form} from './form.js';
import {Stage} from './stage.js';
import {Gallery} from './gallery.js';
import {Viewer} from './viewer.js';
import {TokenDialog} from './token-dialog.js';
import {Offer} from './offer.js';
import {TaskRail} from './task-rail.js';
import {fileIn, noPicture} from './pictures.js';
import {give, pictureIn} from './given.js';
import {textsOf} from './png.js';
import {requestIn} from './infotext.js';
import {fillWith} from './settings.js';

/** @param {File} file fills the form with how it was made, or is the picture to begin with */
async function taken(file) {
  const {capabilities, task} = now();
  if (!capabilities) return;
  const name = file.name || 'the picture';
  const found = requestIn(await textsOf(await file.arrayBuffer()));
  if (found) {
    fillWith(found.request, found.model);
    say(`Settings of ${name} are in the form`);
    return;
  }
  try {
    const url = await pictureIn(file);
    if ('image' in capabilities.tasks[task].fields) await give('image', url);
    else set({offered: {name, url}, opened: null});
  } catch (error) {
    say(`${name}: ${error.message}`);
  }
}

function useDrops() {
  const [isOver, setOver] = useState(false);
  useEffect(() => {
    let depth = 0; // dragenter and dragleave come for each element on the way
    const handlers = {
      dragenter: (event) => {
        if (!event.dataTransfer?.types.includes('Files')) return;
        depth += 1;
        setOver(true);
      },
      dragleave: () => {
        depth = Math.max(0, depth - 1);
        if (depth === 0) setOver(false);
      },
      dragover: (event) => event.preventDefault(),
      drop: (event) => {
        depth = 0;
        setOver(false);
        if (event.defaultPrevented) return; // a field has taken it
        event.preventDefault();
        const file = fileIn(event.dataTransfer);
        if (file) taken(file);
        else if (event.dataTransfer?.files.length) say(noPicture(event.dataTransfer));
      },
      paste: (event) => {
        const file = fileIn(event.clipboardData);
        if (file) taken(file);
      },
    };
    for (const [name, handler] of Object.entries(handlers)) addEventListener(name, handler);
    return () => Object.entries(handlers).forEach(([name, handler]) => removeEventListener(name, handler));
  }, []);
  return isOver;
}

export function App() {
  const isOver = useDrops();
  const view = useStore((state) => state.view);
  const capabilities = useStore((state) => state.capabilities);
  const connection = useStore((state) => state.connection);
  const failure = useStore((state) => state.failure);
  const said = useStore((state) => state.said);
  const opened = useStore((state) => state.opened);
  const needsToken = useStore((state) => state.needsToken);
  return html`
    <${Header} />
    ${connection === 'lost' && html`
      <p class="banner" role="alert">The server does not answer. What you typed is kept; trying again…</p>`}
    ${failure && connection !== 'lost' && html`
      <p class="banner" role="alert">This server can draw nothing: ${failure}. Whoever runs it can mend that.</p>`}
    ${capabilities === null
      ? html`<main class="starting">${connection === 'lost' ? '' : 'Loading…'}</main>`
      : html`<main class=${`view ${view}`}>
          ${view === 'draw' ? html`<${TaskRail} /><${Form} /><${Stage} />` : html`<${Gallery} />`}
        </main>`}
    ${opened !== null && html`<${Viewer} />`}
    ${needsToken && html`<${TokenDialog} />`}
    <${Offer} />
    <p class=${`said ${said ? 'shown' : ''}`} role="status">${said}</p>
    ${isOver && html`<div class="drop-veil" aria-hidden="true"><p>Drop it on a picture field to use the picture;
      anywhere else reads how it was made</p></div>`}
  `;
}
