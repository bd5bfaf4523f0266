// A picture that was made is where another begins.
import {html} from './html.js';
import {now, say} from './store.js';
import {TASKS} from './fields.js';
import {fetched, address} from './server.js';
import {begin, isPossible} from './models.js';
import {dataUrl} from './pictures.js';
import {give} from './given.js';

export const SENT = ['img2img', 'inpaint', 'outpaint', 'upscale'];

async function sendTo(task, path) {
  try {
    const url = await dataUrl(await (await fetched(path)).blob());
    begin(task, {values: {...now().values, mask: ''}, view: 'draw', opened: null});
    await give('image', url);
  } catch (error) {
    say(error.message);
  }
}

/** As a file of the person's. @param {Blob} blob @param {string} name */
export function saved(blob, name) {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

/** Saves the file; with a token it has to be fetched first. */
async function download(path) {
  try {
    saved(await (await fetched(path)).blob(), `${path.split('/').at(-3)}-${path.split('/').at(-1)}.png`);
  } catch (error) {
    say(error.message);
  }
}

/** @param {{path: string}} props of the picture */
export function SendTo({path}) {
  const {capabilities} = now();
  const there = SENT.filter((task) => task in capabilities.tasks && isPossible(capabilities, task));
  return html`
    <div class="buttons" role="group" aria-label="Use the picture">
      ${there.map((task) => html`<button key=${task} type="button" data-send=${task} onClick=${() => sendTo(task, path)}>
        ${task === 'img2img' ? 'Vary' : TASKS[task]}</button>`)}
      <a class="button" href=${address(`${path}?download=true`)} onClick=${(event) => { event.preventDefault(); download(path); }}>Download</a>
    </div>`;
}
