// A labelled grid of pictures, one for each pair of values.
import {html} from './html.js';
import {set, useStore} from './store.js';
import {wordFor} from './fields.js';
import {Picture} from './picture.js';
import {sentenceOf} from './result.js';

/** @param {{drawing: import('./drawing.js').Drawing, told: (object|undefined)[]}} props */
export function SheetGrid({drawing, told}) {
  const {across, down, x, y} = drawing.sheet;
  return html`<div class="sheet-scroll" tabindex="0" role="region" aria-label="Sheet"><table class="sheet-grid">
    ${x && html`<thead><tr>${y && html`<td></td>`}${across.map((one, column) => html`<th key=${column} scope="col">
      <small>${wordFor(x)}</small> ${one}</th>`)}</tr></thead>`}
    <tbody>${down.map((other, row) => html`<tr key=${row}>
      ${y && html`<th scope="row"><small>${wordFor(y)}</small> ${other}</th>`}
      ${across.map((one, column) => html`<td key=${column}><${Cell} job=${told[row * across.length + column]} /></td>`)}
    </tr>`)}</tbody>
  </table></div>`;
}

function Cell({job}) {
  const preview = useStore((state) => (job ? state.previews.get(job.id) : undefined));
  const known = useStore((state) => (job ? state.pictures.find((one) => one.job === job.id) : undefined));
  if (job?.state === 'done') {
    const [path] = job.pictures;
    return html`<button type="button" class="plain" onClick=${() => known && set({opened: known.number})}>
      <${Picture} key=${path} path=${path} alt=${job.request.prompt || job.task} width=${known?.width ?? 64} height=${known?.height ?? 64} /></button>`;
  }
  if (preview) return html`<img class="pixels" src=${preview} alt="the picture so far" />`;
  return html`<div class=${`cell-wait ${job?.error ? 'wrong' : ''}`}>${job?.error ?? sentenceOf(job)}</div>`;
}
