// Which model can do which task, and which classes it knows: as far as the server can tell, which is nothing of a model
// that was never open.
import {now, set} from './store.js';

const NONE = []; // one for all times, or the form would be drawn anew each time
const isUnknown = (model) => !Array.isArray(model.tasks);

/** @param {object} capabilities @param {string} task @returns {object[]} the models that can do it, or may */
export const modelsFor = (capabilities, task) =>
  capabilities.models.filter((one) => isUnknown(one) || one.tasks.includes(task));

/** @param {object} capabilities @param {string} task @returns {boolean} whether a model here may do it */
export const isPossible = (capabilities, task) =>
  capabilities.models.length === 0 || modelsFor(capabilities, task).length > 0;

/** @param {object} capabilities @param {string} task @param {string} model '' for the task's own @returns {string} it, or one that can do the task */
export function modelFor(capabilities, task, model) {
  const there = modelsFor(capabilities, task);
  const has = (name) => there.some((one) => one.name === name);
  const {model: own} = capabilities.tasks[task];
  if (has(model)) return model;
  if (has(own) || there.length === 0) return '';
  return (there.find((one) => !isUnknown(one)) ?? there[0]).name;
}

/** Go to a task, with a model that can do it. @param {string} task @param {Partial<import('./store.js').State>} [also] */
export function begin(task, also = {}) {
  set({task, model: modelFor(now().capabilities, task, now().model), errors: {}, ...also});
}

/** @param {import('./store.js').State} state @returns {string[]} the classes of the model that is chosen */
export function labelsOf({capabilities, task, model}) {
  const own = capabilities.tasks[task].model;
  const chosen = capabilities.models.find((one) => one.name === (model || own));
  return chosen?.labels ?? (model ? null : capabilities.tasks.class2img?.fields.label?.options) ?? NONE;
}

/** @param {object} capabilities @returns {boolean} whether the server does not know yet what it suggests */
export const isStarting = (capabilities) => capabilities.tasks.txt2img?.fields.sampler?.options?.length === 0;

/** @param {object} capabilities @returns {boolean} whether the server may know more once a picture was made */
export const isUnsure = (capabilities) => isStarting(capabilities) || capabilities.models.some((one) => one.tasks === null);
