// Labelled grids of pictures, one picture for each combination of values; blocks one below the other.
import {html, useState} from './html.js';
import {say, set, useStore} from './store.js';
import {wordFor} from './fields.js';
import {hasEnded} from './drawing.js';
import {Picture} from './picture.js';
import {sentenceOf} from './result.js';
import {saved} from './send-to.js';
import {sheetPicture} from './sheet-picture.js';

/** @param {{drawing: import('./drawing.js').Drawing, told: (object|undefined)[]}} props */
export function SheetGrid({drawing, told}) {
  const {across, down, blocks, x, y, z} = drawing.sheet;
  const [isSaving, setSaving] = useState(false);
  const cellOf = (block, row, column) => told[(block * down.length + row) * across.length + column];
  const save = async () => {
    setSaving(true);
    try {
      saved(await sheetPicture(drawing.sheet, cellOf), 'sheet.png');
    } catch (error) {
      say(error.message);
    }
    setSaving(false);
  };
  const table = (block) => html`<table key=${block} class="sheet-grid" style=${{'--columns': across.length}}>
    ${z && html`<caption><small>${wordFor(z)}</small> ${blocks[block]}</caption>`}
    ${y && html`<colgroup><col class="sheet-names" /></colgroup>`}
    ${x && html`<thead><tr>${y && html`<td></td>`}${across.map((one, column) => html`<th key=${column} scope="col">
      <small>${wordFor(x)}</small> ${one}</th>`)}</tr></thead>`}
    <tbody>${down.map((other, row) => html`<tr key=${row}>
      ${y && html`<th scope="row"><small>${wordFor(y)}</small> ${other}</th>`}
      ${across.map((one, column) => html`<td key=${column}><${Cell} job=${cellOf(block, row, column)} /></td>`)}
    </tr>`)}</tbody>
  </table>`;
  return html`<div class="sheet-scroll" tabindex="0" role="region" aria-label="Sheet">${blocks.map((_, block) => table(block))}</div>
    ${told.every(hasEnded) && html`<div class="buttons"><button type="button" disabled=${isSaving} onClick=${save}>Save the sheet</button></div>`}`;
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
