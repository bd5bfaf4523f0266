// One control for one field, by its kind.
import {html, useRef, useLayoutEffect} from './html.js';
import {setValue} from './store.js';
import {isBlank, wordFor} from './fields.js';

/** From nothing to all, with a slider beside. */
const isShare = (field) => field.kind === 'number' && field.least === 0 && field.most === 1;
const LONG = ['prompt', 'negative_prompt', 'prompt_2', 'negative_prompt_2'];

/** What is wrong with a field, or else what it is. @param {{name: string, error?: string, help?: string}} props */
export const Problem = ({name, error, help}) => html`
  <p class=${error ? 'problem' : 'help'} id=${`help-${name}`}>${error ?? help}</p>`;

/** What a text may be, for an input to suggest. @param {{id: string, options?: string[]}} props */
export const Suggested = ({id, options}) => options?.length > 0 && html`
  <datalist id=${id}>${options.map((one) => html`<option key=${one} value=${one} />`)}</datalist>`;

/**
 * @param {{name: string, field: import('./fields.js').Field, value: any, error?: string, suggested?: string[]}} props
 */
export function Control({name, field, value, error, suggested}) {
  const attributes = {
    id: `field-${name}`, name, 'aria-invalid': error ? 'true' : undefined, 'aria-describedby': `help-${name}`,
  };
  const label = html`<label for=${attributes.id}>${wordFor(name)}</label>`;
  const told = html`<${Problem} name=${name} error=${error} help=${field.help} />`;
  const isWide = field.kind === 'texts' || LONG.includes(name) || name === 'label' || isShare(field);
  const shape = `field ${field.kind} ${isWide ? 'wide' : ''} ${error ? 'wrong' : ''}`;
  if (field.kind === 'flag') {
    return html`<div class=${shape}><label class="check"><input type="checkbox" ...${attributes} checked=${value === true}
      onChange=${(event) => setValue(name, event.target.checked)} /> <span>${wordFor(name)}</span></label>${told}</div>`;
  }
  return html`<div class=${shape}>${label}${input(name, field, value, attributes, suggested)}${told}</div>`;
}

function input(name, field, value, attributes, suggested) {
  const typed = (event) => setValue(name, event.target.value);
  if (field.kind === 'choice') {
    return html`<select ...${attributes} value=${value ?? ''} onChange=${typed}>
      <option value="">${field.default} (usual)</option>
      ${field.options.filter((one) => one !== field.default).map((one) => html`<option key=${one} value=${one}>${one}</option>`)}
    </select>`;
  }
  if (field.kind === 'texts') {
    return html`<textarea ...${attributes} rows="3" value=${(value ?? []).join('\n')} placeholder="one per line"
      onInput=${(event) => setValue(name, event.target.value.split('\n').filter((line) => line.trim()))} />`;
  }
  if (LONG.includes(name)) return html`<${Growing} attributes=${attributes} value=${value ?? ''} onInput=${typed} />`;
  if (field.kind === 'integer' || field.kind === 'number') return number(name, field, value, attributes);
  const list = `options-${name}`;
  return html`<input type="text" ...${attributes} value=${value ?? ''} autocomplete="off" spellcheck=${false}
    list=${suggested?.length > 0 ? list : undefined}
    placeholder=${isBlank(field.default) ? 'as usual' : field.default} onInput=${typed} /><${Suggested} id=${list} options=${suggested} />`;
}

/** Text, so that nothing typed is ever lost to the browser's own idea of a number; arrows step it all the same. */
function number(name, field, value, attributes) {
  const size = isShare(field) ? 0.05 : name === 'width' || name === 'height' || name === 'tile' ? 8 : field.kind === 'number' ? 0.5 : 1;
  const step = (by) => {
    const from = Number(isBlank(value) ? field.default ?? field.least : value);
    if (Number.isNaN(from)) return;
    const to = Math.min(field.most, Math.max(field.least, from + by * size));
    setValue(name, String(Math.round(to * 1000) / 1000));
  };
  const keys = (event) => {
    const by = {ArrowUp: 1, ArrowDown: -1}[event.key];
    if (by === undefined) return;
    event.preventDefault();
    step(event.shiftKey ? 10 * by : by);
  };
  const placeholder = isBlank(field.default) ? 'as usual' : name === 'seed' && field.default === -1 ? 'random' : field.default;
  return html`<div class="number-row">
    <input type="text" inputmode=${field.least < 0 ? 'text' : field.kind === 'integer' ? 'numeric' : 'decimal'} ...${attributes}
      value=${value ?? ''} autocomplete="off" placeholder=${placeholder} onKeyDown=${keys}
      onInput=${(event) => setValue(name, event.target.value)} />
    ${isShare(field) && html`<input type="range" min=${field.least} max=${field.most} step="0.01" tabindex="-1" aria-hidden="true"
      value=${isBlank(value) ? field.default ?? 0.5 : value} onInput=${(event) => setValue(name, event.target.value)} />`}
  </div>`;
}

/** A text that is as high as what is in it. */
function Growing({attributes, value, onInput}) {
  const area = useRef(null);
  useLayoutEffect(() => {
    area.current.style.height = 'auto';
    area.current.style.height = `${area.current.scrollHeight + 2}px`;
  }, [value]);
  return html`<textarea ref=${area} ...${attributes} rows=${attributes.name === 'prompt' ? 3 : 1} value=${value}
    placeholder=${attributes.name === 'prompt' ? 'a frog to the left of a panda on a mint background' : 'nothing'}
    onInput=${onInput} />`;
}
