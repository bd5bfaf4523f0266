// Settings in the address: what is after the # can be shared and restores the form. Pictures are too large for it.
import {now, set, watch} from './store.js';
import {isBlank, isList} from './fields.js';
import {SIDES} from './axes.js';
import {modelFor} from './models.js';

/** @param {import('./store.js').State} state @returns {string} without the # */
export function fragmentOf(state) {
  const fields = state.capabilities?.tasks[state.task]?.fields ?? {};
  const told = new URLSearchParams({task: state.task});
  if (state.model) told.set('model', state.model);
  for (const [name, field] of Object.entries(fields)) {
    const value = state.values[name];
    if (field.kind === 'picture' || isBlank(value) || value === false) continue;
    for (const one of Array.isArray(value) ? value : [value]) told.append(name, one);
  }
  for (const side of Object.keys(SIDES)) {
    if (state.axes[side].field) told.set(side, `${state.axes[side].field}=${state.axes[side].values}`);
  }
  return told.toString();
}

/** @param {string} fragment @param {object} capabilities @returns {Partial<import('./store.js').State>|null} */
export function restored(fragment, capabilities) {
  const told = new URLSearchParams(fragment.replace(/^#/, ''));
  const task = told.get('task');
  if (!task || !Object.hasOwn(capabilities.tasks, task)) return null;
  const values = {};
  for (const [name, field] of Object.entries(capabilities.tasks[task].fields)) {
    if (field.kind === 'picture' || !told.has(name)) continue;
    if (isList(field)) values[name] = told.getAll(name);
    else values[name] = field.kind === 'flag' ? told.get(name) === 'true' : told.get(name);
  }
  const axis = (side) => {
    const [, field = '', list = ''] = /^(\w+)=(.*)$/s.exec(told.get(side) ?? '') ?? [];
    return Object.hasOwn(capabilities.tasks[task].fields, field) ? {field, values: list} : {field: '', values: ''};
  };
  return {task, values, model: told.get('model') ?? '', axes: {x: axis('x'), y: axis('y'), z: axis('z')}, errors: {}};
}

/** Keep the address as the form is, and the form as an address that someone goes to is. */
export function tieToAddress() {
  let timer = 0;
  let written = location.hash;
  const write = () => {
    const fragment = `#${fragmentOf(now())}`;
    if (location.hash !== written || fragment === written) return; // gone to another address: its event is on the way
    history.replaceState(null, '', fragment);
    written = location.hash;
  };
  watch(() => { // soon after the first change: a picture that is drawn changes something all the time
    timer ||= setTimeout(() => {
      timer = 0;
      write();
    }, 250);
  });
  addEventListener('pagehide', write);
  addEventListener('hashchange', () => {
    if (location.hash === written) return;
    written = location.hash;
    const found = restored(location.hash, now().capabilities);
    if (found) set({...found, values: {...picturesOf(now()), ...found.values}});
  });
}

/** @param {import('./store.js').State} state @returns {Record<string, string>} the values that are pictures */
export function picturesOf(state) {
  const all = Object.values(state.capabilities?.tasks ?? {}).flatMap((task) => Object.entries(task.fields));
  const names = new Set(all.filter(([, field]) => field.kind === 'picture').map(([name]) => name));
  return Object.fromEntries(Object.entries(state.values).filter(([name]) => names.has(name)));
}

/**
 * Fill the form with a request, as the server keeps it or a picture tells it.
 * @param {Record<string, any>} request
 * @param {string} [model]
 */
export function fillWith(request, model = '') {
  const state = now();
  const task = Object.hasOwn(state.capabilities.tasks, request.task) ? request.task : 'txt2img';
  const values = picturesOf(state);
  for (const [name, field] of Object.entries(state.capabilities.tasks[task].fields)) {
    const value = request[name];
    if (field.kind === 'picture' || isBlank(value) || value === field.default) continue;
    if (isList(field)) values[name] = [value].flat().map(String);
    else values[name] = field.kind === 'flag' ? value : String(value);
  }
  const known = state.capabilities.models.some((one) => one.name === model);
  const own = state.capabilities.tasks[task].model;
  const wished = known && model !== own ? model : '';
  set({task, values, model: modelFor(state.capabilities, task, wished), errors: {}, view: 'draw', opened: null});
}
