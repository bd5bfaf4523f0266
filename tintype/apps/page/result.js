// What is drawn: the estimate as it clears up, then the picture; or why there is none.
import {html, useEffect, useRef, useState} from './html.js';
import {set, setValue, useStore} from './store.js';
import {cancelShown, draw, hasEnded, isOver, shownDrawing} from './drawing.js';
import {Picture} from './picture.js';
import {SheetGrid} from './sheet-grid.js';
import {SendTo} from './send-to.js';
import {Past} from './past.js';

const EXAMPLES = ['a red apple on a sky blue background', 'a frog to the left of a panda on a mint background',
  'a green apple on a yellow background'];
const ANNOUNCED = 2000; // milliseconds between two sentences that are read out

/** @param {number|null} seconds */
const inWords = (seconds) => {
  if (seconds === null || seconds === undefined) return '';
  const whole = Math.max(1, Math.round(seconds));
  if (whole < 90) return `, ${whole} second${whole === 1 ? '' : 's'} left`;
  return `, ${Math.round(whole / 60)} minutes left`;
};

const tookIn = (job) => {
  const seconds = job.ended - job.started;
  return seconds < 9.95 ? `${seconds.toFixed(1)} seconds` : seconds < 90 ? `${Math.round(seconds)} seconds` : `${Math.round(seconds / 60)} minutes`;
};

/** What a job is at, as a sentence. @param {object|undefined} job @param {boolean} isSending */
export function sentenceOf(job, isSending = false) {
  if (!job) return isSending ? 'sending' : '';
  if (job.state === 'queued') return job.position ? `waiting, ${job.position} before it` : 'waiting';
  if (job.state === 'running') return job.steps ? `step ${job.step} of ${job.steps}${inWords(job.left)}` : 'beginning';
  if (job.state === 'done') return `${job.pictures.length === 1 ? 'done' : `${job.pictures.length} pictures`} in ${tookIn(job)}`;
  return job.state === 'failed' ? `failed: ${job.error}` : job.state;
}

export function Result() {
  const drawing = useStore(shownDrawing);
  const jobs = useStore((state) => state.jobs);
  if (!drawing) return html`<${Invitation} />`;
  const told = drawing.jobs.map((id) => (id === null ? undefined : jobs.get(id)));
  const going = !isOver(drawing, jobs);
  const ended = told.filter(hasEnded).length;
  const sentence = drawing.sheet && going
    ? `${ended} of ${told.length} done; ${sentenceOf(told.find((job) => job && !hasEnded(job)), drawing.isSending)}`
    : drawing.sheet ? `done, ${ended} pictures` : sentenceOf(told[0], drawing.isSending);
  return html`<section class="pane result" aria-label="Result" aria-busy=${going}>
    ${drawing.sheet
      ? html`<${SheetGrid} drawing=${drawing} told=${told} />`
      : html`<${One} key=${drawing.key} job=${told[0]} />`}
    <${Progress} going=${going} sentence=${sentence} job=${told.find((job) => job && !hasEnded(job))} share=${drawing.sheet
      ? ended / told.length : null} />
    ${drawing.error && html`<p class="problem">${drawing.error}</p>`}
    ${!drawing.sheet && told[0]?.warnings?.map((one) => html`<p key=${one} class="help">${one}</p>`)}
    ${!drawing.sheet && told[0]?.state === 'done' && html`<${PastOfOne} key=${told[0].id} job=${told[0]} />`}
  </section>`;
}

function Invitation() {
  const task = useStore((state) => state.task);
  const help = useStore((state) => state.capabilities.tasks[state.task].help);
  return html`<section class="pane result empty" aria-label="Result">
    <div class="frame blank"><div>
      <p class="hint">${help[0].toUpperCase() + help.slice(1)}.</p>
      ${task === 'txt2img' && html`<p>Try one of these:</p><ul class="examples">
        ${EXAMPLES.map((one) => html`<li key=${one}><button type="button" onClick=${() => { setValue('prompt', one); draw(); }}>${one}</button></li>`)}
      </ul>`}
    </div></div>
  </section>`;
}

function One({job}) {
  const preview = useStore((state) => (job ? state.previews.get(job.id) : undefined));
  const pictures = useStore((state) => state.pictures);
  if (job?.state === 'done') {
    return html`<div class=${`frame made ${job.pictures.length > 1 ? 'many' : ''}`} data-count=${Math.min(4, Math.ceil(Math.sqrt(job.pictures.length)))}>
      ${job.pictures.map((path) => {
        const known = pictures.find((one) => one.url === path);
        return html`<button key=${path} type="button" class="plain" aria-label=${`Open the picture: ${job.request.prompt || job.task}`}
          onClick=${() => known && set({opened: known.number})}>
          <${Picture} path=${path} alt=${job.request.prompt || `a picture of ${job.task}`} width=${known?.width ?? job.request.width ?? 64}
            height=${known?.height ?? job.request.height ?? 64} /></button>`;
      })}
    </div>
    ${job.pictures.length === 1 && html`<div class="row"><${SendTo} path=${job.pictures[0]} /></div>`}`;
  }
  if (job && hasEnded(job)) {
    return html`<div class="frame blank"><div>
      <p class="hint">${{cancelled: 'Cancelled.', expired: 'Its time ran out.', interrupted: 'The server stopped while it was drawn.'}[job.state]
        ?? 'It came to nothing.'}</p>
      ${job.state !== 'cancelled' && html`<p class="problem" role="alert">${job.error}</p>`}
      <button type="button" onClick=${draw}>Draw again</button>
    </div></div>`;
  }
  return html`<div class="frame">${preview
    ? html`<img class="pixels preview" src=${preview} alt="the picture so far" />`
    : html`<div class="shimmer" aria-hidden="true"></div>`}</div>`;
}

/** Of a batch one at a time. */
function PastOfOne({job}) {
  const [place, setPlace] = useState(0);
  return html`<${Past} job=${job} place=${place}>
    ${job.pictures.length > 1 && html`<label class="field of-batch">Of picture
      <select value=${place} onChange=${(event) => setPlace(Number(event.target.value))}>
        ${job.pictures.map((path, number) => html`<option key=${path} value=${number}>${number + 1} of ${job.pictures.length}</option>`)}
      </select></label>`}<//>`;
}

/** The bar, its words, and what a screen reader says: not each step, which nobody can listen to. */
function Progress({going, sentence, job, share}) {
  const said = useAnnounced(sentence, going);
  const done = share ?? (job?.steps ? job.step / job.steps : 0);
  return html`
    <div class=${`progress ${going ? '' : 'over'}`}>
      ${going && html`<progress max="1" value=${job?.steps || share !== null ? done : undefined} aria-label="Progress"></progress>
        <button type="button" class="quiet" onClick=${cancelShown}>Cancel</button>`}
      <span class="sentence" aria-hidden="true">${sentence.startsWith('failed') ? '' : sentence}</span>
    </div>
    <p class="heard" role="status" aria-live="polite">${said}</p>`;
}

function useAnnounced(sentence, going) {
  const [said, setSaid] = useState('');
  const latest = useRef(sentence);
  const at = useRef(0);
  latest.current = sentence;
  useEffect(() => {
    const wait = going ? Math.max(0, at.current + ANNOUNCED - Date.now()) : 0;
    const timer = setTimeout(() => {
      at.current = Date.now();
      setSaid(latest.current);
    }, wait);
    return () => clearTimeout(timer);
  }, [sentence, going]);
  return said;
}
