// Where the page begins.
import {html, render} from './html.js';
import {now, set} from './store.js';
import {restored, tieToAddress} from './settings.js';
import {ask, pause, Unreachable} from './server.js';
import {draw, cancelShown, follow} from './drawing.js';
import {App} from './app.js';

render(html`<${App} />`, document.getElementById('page'));

addEventListener('keydown', (event) => {
  if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    draw();
  } else if (event.key === 'Escape' && !document.querySelector('dialog[open]') && cancelShown()) {
    event.preventDefault();
  }
});

for (let silences = 0; now().capabilities === null;) {
  try {
    const capabilities = await ask('v1/capabilities');
    set({capabilities, connection: 'starting', ...restored(location.hash, capabilities)});
  } catch (error) {
    set({connection: 'lost'});
    if (!(error instanceof Unreachable)) set({errors: {'': error.message}});
    await pause(Math.min(1000 * ++silences, 4000));
  }
}
tieToAddress();
await follow();
