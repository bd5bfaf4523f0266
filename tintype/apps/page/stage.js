// The middle: what is edited beside what comes of it, the queue, the latest pictures.
import {html} from './html.js';
import {set, useStore} from './store.js';
import {Result} from './result.js';
import {Queue} from './queue.js';
import {MaskEditor} from './mask-editor.js';
import {OutpaintEditor} from './outpaint-editor.js';
import {BoxEditor} from './box-editor.js';
import {Picture} from './picture.js';

const EDITORS = {inpaint: MaskEditor, outpaint: OutpaintEditor, layout2img: BoxEditor};
const LATEST = 16;

export function Stage() {
  const task = useStore((state) => state.task);
  const Editor = EDITORS[task];
  return html`<section class="stage" aria-label="Picture">
    <div class=${`panes ${Editor ? 'two' : ''}`}>
      ${Editor && html`<${Editor} key=${task} />`}
      <${Result} />
    </div>
    <${Queue} />
    <${Latest} />
  </section>`;
}

function Latest() {
  const pictures = useStore((state) => state.pictures);
  if (pictures.length === 0) return null;
  return html`<section class="latest" aria-labelledby="latest-title">
    <h2 id="latest-title">Latest</h2>
    <ul>${pictures.slice(0, LATEST).map((one) => html`<li key=${one.number}>
      <button type="button" class="thumb" onClick=${() => set({opened: one.number})}>
        <${Picture} path=${one.url} alt=${one.prompt || 'a picture without a prompt'} width=${one.width} height=${one.height} lazy />
      </button></li>`)}</ul>
  </section>`;
}
