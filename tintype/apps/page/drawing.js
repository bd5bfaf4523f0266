// From the form to jobs, and what becomes of them.
import {now, say, set} from './store.js';
import {fieldNamedIn, isBlank, requestOf} from './fields.js';
import {cellsOf, hasAxes} from './axes.js';
import {ask, events, failure, pause, Refused, Unreachable} from './server.js';
import {forget, refresh} from './gallery-index.js';
import {isStarting, isUnsure} from './models.js';

/**
 * @typedef {{across: string[], down: string[], blocks: string[], x: string, y: string, z: string}} Sheet the values, and
 * the fields they are of, '' where there is none
 *
 * @typedef {object} Drawing
 * @property {number} key
 * @property {string} task
 * @property {(string|null)[]} jobs their ids, in the order of the cells; null before the server has taken it
 * @property {Sheet|null} sheet
 * @property {boolean} isSending
 * @property {boolean} isStopped
 * @property {string} error
 */

const ENDED = ['done', 'failed', 'cancelled', 'expired', 'interrupted', 'gone'];
const MISSING = {
  image: 'choose a picture first', mask: 'paint what is to be made anew', boxes: 'draw a box first',
  depth: 'choose a picture of how near all is', map: 'choose a map of classes',
};
let keys = 0;

/** @param {object|undefined} job @returns {boolean} */
export const hasEnded = (job) => job !== undefined && ENDED.includes(job.state);

/** @param {Drawing} drawing @param {Map<string, object>} jobs */
export const isOver = (drawing, jobs) =>
  !drawing.isSending && drawing.jobs.every((id) => id === null || hasEnded(jobs.get(id)));

/** @param {import('./store.js').State} state @returns {Drawing|null} what the stage shows: the first that goes on, or the last */
export const shownDrawing = (state) =>
  state.drawings.find((one) => !isOver(one, state.jobs)) ?? state.drawings.at(-1) ?? null;

/** @param {import('./store.js').State} state @returns {object|null} the job whose steps are followed */
export function followedJob(state) {
  const drawing = shownDrawing(state);
  const id = drawing?.jobs.find((one) => one !== null && !hasEnded(state.jobs.get(one)));
  return id ? state.jobs.get(id) ?? null : null;
}

/** @param {string} task @returns {Drawing} */
const emptyDrawing = (task) => ({key: ++keys, task, jobs: [], sheet: null, isSending: false, isStopped: false, error: ''});

function change(key, patch) {
  set({drawings: now().drawings.map((one) => (one.key === key ? {...one, ...patch} : one))});
}

/** Ask for what the form says. */
export async function draw() {
  const {capabilities, task, values, axes, model} = now();
  if (!capabilities) return;
  const {fields} = capabilities.tasks[task];
  const {request, errors} = requestOf(fields, values);
  for (const [name, sentence] of Object.entries(MISSING)) {
    if (name in fields && isBlank(values[name])) errors[name] ??= sentence;
  }
  if (task === 'outpaint' && !['left', 'right', 'top', 'bottom'].some((side) => request[side] > 0 || errors[side])) {
    errors.right = 'add pixels on a side or more';
  }
  const made = hasAxes(axes) ? cellsOf(axes, fields, request) : null;
  if (made) Object.assign(errors, prefixed(made.errors));
  set({errors});
  if (Object.keys(errors).length > 0) {
    showFirstWrong();
    return;
  }

  const cells = made ? made.cells : [request];
  const isKept = !made && !request.hires_scale; // its steps can be looked at afterwards
  const also = {...(model ? {model} : {}), ...(isKept ? {keep_steps: true} : {})};
  await sent(task, cells.map((cell) => ({task, ...cell, ...also})), made && made.sheet);
}

/**
 * Go on from a step of a job with what the form says now: prompts and guidance; all else stays as it was.
 * @param {object} job done, its steps kept @param {number} step
 */
export async function branch(job, step) {
  const {request} = requestOf(now().capabilities.tasks[job.task].fields, now().values);
  const {prompt = '', negative_prompt = '', cfg_scale = job.request.cfg_scale} = request;
  const said = job.task === 'class2img' ? {cfg_scale} : {prompt, negative_prompt, cfg_scale};
  const asked = {...job.request, ...said, model: job.model, keep_steps: true, branch: `${job.id}:${step}`};
  set({errors: {}, view: 'draw', opened: null});
  await sent(job.task, [asked], null);
}

/** Send jobs and show them as one drawing. */
async function sent(task, bodies, sheet) {
  const {fields} = now().capabilities.tasks[task];
  const drawing = {...emptyDrawing(task), jobs: bodies.map(() => null), sheet, isSending: true};
  const {key} = drawing;
  set({drawings: [...now().drawings.slice(-49), drawing]});
  if (!matchMedia('(min-width: 48rem)').matches) { // one column: the picture may be far above what was typed
    requestAnimationFrame(() => document.querySelector('.result')?.scrollIntoView({block: 'start'}));
  }
  try {
    for (const [place, body] of bodies.entries()) {
      const job = await submitted(key, body);
      if (job === null) break; // stopped
      merge([job]);
      const {jobs} = now().drawings.find((one) => one.key === key);
      change(key, {jobs: jobs.with(place, job.id)});
    }
    change(key, {isSending: false});
  } catch (error) {
    if (!(error instanceof Refused || error instanceof Unreachable)) throw error;
    change(key, {isSending: false, error: error.message});
    set({errors: error.status === 503 ? {'': error.message} : errorsIn(error, fields, bodies[0])});
    showFirstWrong();
    if (!now().drawings.find((one) => one.key === key).jobs.some(Boolean)) {
      set({drawings: now().drawings.filter((one) => one.key !== key)}); // it is told beside the field
    }
  }
  wake();
}

/** Into sight, where it is not; what is typed in keeps the focus. */
const showFirstWrong = () =>
  requestAnimationFrame(() => document.querySelector('.field.wrong, .pane .problem')?.scrollIntoView({block: 'nearest'}));

const prefixed = (errors) => Object.fromEntries(Object.entries(errors).map(([side, told]) => [`sheet ${side}`, told]));

/** Sends one job until the server takes or refuses it; the key makes sure that it is one, however often it is sent. */
async function submitted(key, body) {
  const idempotency = [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, '0')).join('');
  for (let silences = 0; ;) {
    if (now().drawings.find((one) => one.key === key)?.isStopped) return null;
    try {
      return await ask('v1/jobs', {method: 'POST', body, headers: {'Idempotency-Key': idempotency}});
    } catch (error) {
      const isBusy = error instanceof Refused && (error.status === 429 || (error.status === 503 && error.retry > 0));
      if (!isBusy && !(error instanceof Unreachable && ++silences < 6)) throw error;
      if (error.status === 503) { // it stops, and will be back; or it waits for someone who looks after it
        const why = await failure();
        set({failure: why});
        if (why) throw new Refused(503, why);
      }
      await pause(isBusy ? 1000 * Math.min(5, error.retry || 1) : 1500);
    }
  }
}

function errorsIn(error, fields, request) {
  if (Object.keys(error.fields ?? {}).length > 0) return error.fields;
  const side = sideIn(error.message, fields, request);
  if (side) return {[side]: `the whole ${error.message}`};
  const names = [...Object.keys(fields), 'model'];
  const about = names.includes(error.about) ? error.about : fieldNamedIn(error.message, names);
  return {[about]: plain(error.message)};
}

/** Of what is added on all sides a sentence tells the whole alone. @returns {string|undefined} the side that is to blame */
function sideIn(sentence, fields, request) {
  const [, whole] = /^(width|height) \d/.exec(sentence) ?? [];
  const sides = {width: ['right', 'left'], height: ['bottom', 'top']}[whole] ?? [];
  return sides.find((side) => side in fields && request[side] % 8) ?? sides.find((side) => side in fields);
}

/** Without what only the command line has. @param {string} sentence */
const plain = (sentence) => sentence.replace(/,? (by|as|such as|expected one:) --\w+( \S+)?/g, '').replace(/, or --\w+/g, '');

/** End one job. @param {string} id */
export async function cancelJob(id) {
  try {
    merge([await ask(`v1/jobs/${id}/cancel`, {method: 'POST'})]);
  } catch (error) {
    if (!(error instanceof Refused)) say(error.message); // 409: it has ended meanwhile
  }
  wake();
}

/** End all of what the stage shows. @returns {boolean} whether there was something to end */
export function cancelShown() {
  const state = now();
  const drawing = shownDrawing(state);
  if (!drawing || isOver(drawing, state.jobs)) return false;
  change(drawing.key, {isStopped: true});
  for (const id of drawing.jobs) if (id !== null && !hasEnded(state.jobs.get(id))) cancelJob(id);
  return true;
}

/** Forget a job and its pictures. @param {string} id */
export async function removeJob(id) {
  await ask(`v1/jobs/${id}`, {method: 'DELETE'}).catch((error) => {
    if (error.status !== 404) throw error;
  });
  const jobs = new Map(now().jobs);
  jobs.delete(id);
  set({jobs, drawings: now().drawings.filter((one) => !one.jobs.includes(id))});
  forget(id);
}

/** What the server told of jobs becomes what the page knows. */
function merge(told) {
  const {jobs, previews, task} = now();
  const next = new Map(jobs);
  let hasNews = false;
  let isDone = false;
  for (const job of told) {
    const before = jobs.get(job.id);
    if (hasEnded(before) || (before && JSON.stringify(before) === JSON.stringify(job))) continue;
    if (before?.state === 'running' && job.state === 'running' && job.step < before.step) continue; // it was overtaken
    next.set(job.id, job);
    hasNews = true;
    isDone ||= job.state === 'done' && before !== undefined;
    if (job.fault === 'invalid' && before && job.task === task) {
      set({errors: errorsIn({message: job.error}, now().capabilities.tasks[task].fields, job.request)});
    }
  }
  if (!hasNews) return;
  const kept = [...previews].filter(([id]) => !hasEnded(next.get(id)));
  set({jobs: next, ...(kept.length < previews.size ? {previews: new Map(kept)} : {})});
  if (isDone) {
    refresh().catch(() => {}); // the index is asked for again at the next picture
    if (isUnsure(now().capabilities)) learn().catch(() => {});
  }
}

/** What the server tells of itself by now. */
async function learn() {
  const told = await ask('v1/capabilities');
  if (JSON.stringify(told) !== JSON.stringify(now().capabilities)) set({capabilities: told});
}

let wakeUp = () => {};
const wake = () => wakeUp();

/** Keeps up with the server for as long as the page is open: jobs, previews, and whether it answers at all. */
export async function follow() {
  let isFirst = true;
  for (let silences = 0; ;) {
    try {
      await round(isFirst);
      if (now().connection !== 'there') await returned();
      isFirst = false;
      silences = 0;
    } catch (error) {
      if (!(error instanceof Unreachable || error instanceof Refused)) throw error;
      if (error instanceof Unreachable && now().connection !== 'lost') set({connection: 'lost'});
      silences += 1;
    }
    const goesOn = now().drawings.some((one) => !isOver(one, now().jobs)) || active(now()).length > 0;
    const rest = silences > 0 ? Math.min(1000 * silences, 4000) : goesOn ? 700 : now().failure ? 3000 : 10000;
    await Promise.race([pause(rest), new Promise((resolve) => (wakeUp = resolve))]);
  }
}

/** @param {import('./store.js').State} state @returns {object[]} jobs that wait or are drawn, the next first */
export const active = (state) =>
  [...state.jobs.values()].filter((job) => !hasEnded(job)).sort((one, other) => one.created - other.created);

async function round(isFirst) {
  const ours = now().drawings.flatMap((one) => one.jobs).filter((id) => id && !hasEnded(now().jobs.get(id)));
  const told = await ask(`v1/jobs?count=${Math.min(500, 50 + ours.length)}`);
  merge(told);
  const seen = new Set(told.map((job) => job.id));
  const gone = [...now().jobs.values()].filter((job) => !hasEnded(job) && !seen.has(job.id));
  for (const job of gone) {
    const found = await ask(`v1/jobs/${job.id}`).catch((error) => {
      if (error.status === 404) return {...job, state: 'gone', error: 'the server no longer knows it'};
      throw error;
    });
    merge([found]);
  }
  if (isFirst) {
    const adopted = active(now()).map((job) => ({...emptyDrawing(job.task), jobs: [job.id]}));
    const last = told.find((job) => job.state === 'done'); // for who comes back
    const shown = last ? [{...emptyDrawing(last.task), jobs: [last.id]}] : [];
    set({drawings: [...shown, ...adopted, ...now().drawings]});
  }
  const waiting = active(now());
  if (now().failure || (waiting.length > 0 && waiting.every((job) => job.state === 'queued'))) set({failure: await failure()});
  stream();
  if (isStarting(now().capabilities)) await learn();
}

async function returned() {
  set({capabilities: await ask('v1/capabilities'), connection: 'there', failure: await failure()});
  await refresh();
}

let streamed = {id: '', end: () => {}};

/** Steps and previews of the job that the stage shows. One stream at a time: browsers open six connections at most. */
async function stream() {
  const id = followedJob(now())?.id ?? '';
  if (id === streamed.id) return;
  streamed.end();
  const controller = new AbortController();
  const mine = {id, end: () => controller.abort()};
  streamed = mine;
  if (!id) return;
  try {
    for await (const {event, data} of events(`v1/jobs/${id}/events?previews=true`, controller.signal)) {
      if (event === 'job') merge([data]);
      else if (event === 'preview') {
        set({previews: new Map(now().previews).set(id, `data:image/png;base64,${data.png}`)});
      }
    }
  } catch {
    // the server went away, or the job is another's: the next round finds out, and comes back here
  }
  if (streamed === mine) streamed = {id: '', end: () => {}};
  wake();
}
