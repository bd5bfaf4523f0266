// The form of a task, made of what the server says that the task takes.
import {html} from './html.js';
import {now, say, set, setValue, useStore} from './store.js';
import {isBlank, placed, wordFor} from './fields.js';
import {hasEnded, draw, cancelShown, isOver, shownDrawing} from './drawing.js';
import {cellsOf, hasAxes} from './axes.js';
import {isPossible, labelsOf, modelsFor} from './models.js';
import {Control, Problem} from './field.js';
import {PictureField} from './picture-field.js';
import {LoraField} from './lora-field.js';
import {SheetForm} from './sheet-form.js';
import {Tokens} from './panel-tokens.js';
import {Icon} from './icons.js';

// What the stage edits in the place of a control of the form
export const EDITED = {inpaint: ['image', 'mask'], outpaint: ['image'], layout2img: ['boxes']};

export function Form() {
  const capabilities = useStore((state) => state.capabilities);
  const task = useStore((state) => state.task);
  const values = useStore((state) => state.values);
  const errors = useStore((state) => state.errors);
  const model = useStore((state) => state.model);
  const {fields, help, model: own} = capabilities.tasks[task];
  const places = placed(fields);
  const labels = useStore(labelsOf);
  const control = (name) => html`<${Control} key=${name} name=${name} field=${fields[name]} value=${values[name]}
    error=${errors[name]} suggested=${name === 'label' ? labels : fields[name].options} />`;
  const changed = places.more.filter((name) => !isBlank(values[name]) && values[name] !== false).length;
  const hasHidden = places.more.some((name) => errors[name]);
  return html`<form class="form" aria-label=${help} onSubmit=${(event) => { event.preventDefault(); draw(); }}>
    <div class="fields">
      <p class="lead">${help}</p>
      ${!isPossible(capabilities, task) && html`<p class="problem">No model on this server can do this.</p>`}
      ${places.prompts.map((name) => html`${control(name)}
        ${name !== 'label' && html`<${Tokens} name=${name} text=${values[name] ?? ''} model=${model || own} />`}`)}
      ${places.inputs.filter((name) => !EDITED[task]?.includes(name)).map((name) => fields[name].kind === 'picture'
        ? html`<${PictureField} key=${name} name=${name} />` : control(name))}
      ${places.sides.length > 0 && html`<fieldset class="group"><legend>Pixels to add</legend>
        <div class="pairs">${places.sides.map(control)}</div></fieldset>`}
      <div class="pairs">
        ${places.first.map((name) => (name === 'seed' ? html`<${Seed} key="seed">${control(name)}<//>` : control(name)))}
        <${ModelChoice} own=${own} />
      </div>
      ${places.loras.map((name) => html`<${LoraField} key=${name} name=${name} />`)}
      <${SheetForm} fields=${fields} />
      <details class="more" open=${hasHidden || undefined}>
        <summary>More${changed > 0 ? ` (${changed} changed)` : ''}</summary>
        <div class="pairs">${places.more.map(control)}</div>
      </details>
    </div>
    <${Actions} />
  </form>`;
}

/** The seed, with its two usual wishes: another each time, and the last one again. */
function Seed({children}) {
  const last = useStore((state) => [...state.drawings].reverse().flatMap((one) => one.jobs)
    .map((id) => state.jobs.get(id)).find((job) => hasEnded(job) && job.request.seed !== undefined)?.request.seed);
  const typed = useStore((state) => state.values.seed);
  const isRandom = isBlank(typed) || String(typed) === '-1';
  return html`<div class="seed">${children}
    ${isRandom
      ? html`<button type="button" class="quiet round" disabled=${last === undefined} aria-label="Use the last seed again"
          title="Use the last seed again" onClick=${() => setValue('seed', String(last))}><${Icon} name="again" /></button>`
      : html`<button type="button" class="quiet round" aria-label="Another seed each time" title="Another seed each time"
          onClick=${() => setValue('seed', '')}><${Icon} name="dice" /></button>`}
  </div>`;
}

function ModelChoice({own}) {
  const models = useStore((state) => state.capabilities.models);
  const capabilities = useStore((state) => state.capabilities);
  const task = useStore((state) => state.task);
  const model = useStore((state) => state.model);
  const error = useStore((state) => state.errors.model);
  const fit = modelsFor(capabilities, task);
  const isFit = (name) => fit.some((one) => one.name === name);
  const why = (name) => (isFit(name) ? '' : models.some((one) => one.name === name) ? ' (cannot do this)' : ' (not on this server)');
  const offered = fit.map((one) => one.name).filter((name) => name !== own);
  const names = model && model !== own && !isFit(model) ? [...offered, model] : offered; // what is chosen is seen
  return html`<div class=${`field wide ${error ? 'wrong' : ''}`}>
    <label for="field-model">Model</label>
    <select id="field-model" value=${model} aria-invalid=${error ? 'true' : undefined} aria-describedby="help-model"
      onChange=${(event) => set({model: event.target.value, errors: {...now().errors, model: undefined}})}>
      <option value="">${own}${why(own)}</option>
      ${names.map((name) => html`<option key=${name} value=${name}>${name}${why(name)}</option>`)}
    </select>
    <${Problem} name="model" error=${error} help=${models.length > 1 ? '' : 'more appear with tintype serve --models FOLDER'} />
  </div>`;
}

function Actions() {
  const isBusy = useStore((state) => {
    const drawing = shownDrawing(state);
    return drawing !== null && !isOver(drawing, state.jobs);
  });
  const cells = useStore((state) => {
    if (!hasAxes(state.axes)) return 1;
    const made = cellsOf(state.axes, state.capabilities.tasks[state.task].fields, {});
    return Object.keys(made.errors).length > 0 ? 1 : made.cells.length;
  });
  const errors = useStore((state) => state.errors);
  const wrong = Object.keys(errors).filter((name) => errors[name]);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(location.href);
      say('A link to these settings is in the clipboard');
    } catch {
      say('The address of this page is the link to these settings');
    }
  };
  return html`<div class="actions">
    ${errors[''] && html`<p class="problem" role="alert">${errors['']}</p>`}
    ${wrong.length > 0 && !errors[''] && html`<p class="problem" role="alert">Look at ${wrong.map((name) => wordFor(name)).join(', ')}</p>`}
    <button class="primary" type="submit" title="Ctrl+Enter">${cells > 1 ? `Draw ${cells} pictures` : 'Draw'}
      <kbd aria-hidden="true">Ctrl ↵</kbd></button>
    ${isBusy && html`<button type="button" onClick=${cancelShown} title="Escape">Cancel <kbd aria-hidden="true">Esc</kbd></button>`}
    <button type="button" class="quiet round" aria-label="Copy a link to these settings" title="Copy a link to these settings"
      onClick=${copy}><${Icon} name="link" /></button>
  </div>`;
}
