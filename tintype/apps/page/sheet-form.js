// Which settings to vary, up to three, and through which values.
import {html} from './html.js';
import {now, set, useStore} from './store.js';
import {wordFor} from './fields.js';
import {hasAxes, SIDES} from './axes.js';
import {Problem} from './field.js';

const EXAMPLES = {cfg_scale: '1, 3, 6', steps: '5, 10, 25', seed: '1, 2, 3', strength: '0.4, 0.6, 0.8', sampler: 'ddim, euler'};

/** @param {{fields: Record<string, import('./fields.js').Field>}} props */
export function SheetForm({fields}) {
  const axes = useStore((state) => state.axes);
  const errors = useStore((state) => state.errors);
  const names = Object.keys(fields).filter((name) => !['picture', 'texts', 'loras'].includes(fields[name].kind));
  const change = (side, patch) => {
    const {[`sheet ${side}`]: _, ...rest} = now().errors;
    set({axes: {...axes, [side]: {...axes[side], ...patch}}, errors: rest});
  };
  const row = (side, word) => {
    const {field, values} = axes[side];
    const error = errors[`sheet ${side}`];
    const known = fields[field];
    const example = EXAMPLES[field] ?? (known?.options?.slice(0, 3) ?? (known?.kind === 'flag' ? ['true', 'false'] : ['one', 'another'])).join(', ');
    return html`<div key=${side} class=${`field wide axis ${error ? 'wrong' : ''}`}>
      <label for=${`axis-${side}`}>${word}</label>
      <div class="axis-row">
        <select id=${`axis-${side}`} value=${field} onChange=${(event) => change(side, {field: event.target.value})}>
          <option value="">nothing</option>
          ${names.map((name) => html`<option key=${name} value=${name}>${wordFor(name)}</option>`)}
        </select>
        ${field && html`<input type="text" id=${`values-${side}`} aria-label=${`Values ${word.toLowerCase()}`} value=${values}
          aria-invalid=${error ? 'true' : undefined} aria-describedby=${`help-sheet-${side}`} placeholder=${example}
          autocomplete="off" onInput=${(event) => change(side, {values: event.target.value})} />`}
      </div>
      ${(error || field) && html`<${Problem} name=${`sheet-${side}`} error=${error} help="commas between; quotes around what has commas" />`}
    </div>`;
  };
  return html`<details class="more sheet" open=${hasAxes(axes) || undefined}>
    <summary>Compare on a sheet</summary>
    <p class="help">A picture for each value, side by side, all with one seed. Blocks are sheets one below the other.</p>
    ${Object.entries(SIDES).map(([side, word]) => row(side, word))}
  </details>`;
}
