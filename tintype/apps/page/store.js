// What the page knows, in one place; components are drawn anew when the part they read changed.
import {useLayoutEffect, useRef, useState} from './html.js';

/**
 * @typedef {object} State
 * @property {object|null} capabilities what the server tells of itself
 * @property {'starting'|'there'|'lost'} connection
 * @property {boolean} needsToken whether the server wants a token that we have not
 * @property {string} failure why the server can draw nothing; '' where it can
 * @property {'draw'|'pictures'} view
 * @property {string} task
 * @property {Record<string, any>} values as typed, by field; all tasks share them
 * @property {string} model '' for the task's own
 * @property {{x: Axis, y: Axis, z: Axis}} axes
 * @property {Record<string, string>} errors by field; '' is for those of none
 * @property {Map<string, object>} jobs as the server told them last, by id
 * @property {Map<string, string>} previews data URLs, by job
 * @property {object[]} drawings what was asked for from this page, oldest first
 * @property {object[]} pictures the gallery's index, newest first
 * @property {boolean} complete whether the index goes to the oldest picture
 * @property {number|null} opened the number of the picture in the large view
 * @property {string} said a sentence for a moment
 * @property {{name: string, url: string}|null} offered a picture that may be begun with
 * @property {Record<string, {url: string, told: string}>} fitted pictures that were made to fit, by field, and a sentence of it
 *
 * @typedef {{field: string, values: string}} Axis
 */

const NONE = {field: '', values: ''};
const NOTHING = {x: NONE, y: NONE, z: NONE};

/** @type {State} */
let state = {
  capabilities: null, connection: 'starting', needsToken: false, failure: '', view: 'draw', task: 'txt2img', values: {}, model: '',
  axes: NOTHING, errors: {}, jobs: new Map(), previews: new Map(), drawings: [], pictures: [], complete: false,
  opened: null, said: '', offered: null, fitted: {},
};
const watchers = new Set();

/** @returns {State} */
export const now = () => state;

/** @param {Partial<State>} patch */
export function set(patch) {
  state = {...state, ...patch};
  for (const watch of [...watchers]) watch();
}

/** @param {() => void} watch @returns {() => void} ends it */
export function watch(watch) {
  watchers.add(watch);
  return () => watchers.delete(watch);
}

/**
 * A part of the state, in a component.
 * @template T
 * @param {(state: State) => T} part
 * @returns {T}
 */
export function useStore(part) {
  const found = part(state);
  const [, redraw] = useState(0);
  const seen = useRef(null);
  seen.current = {part, found};
  useLayoutEffect(() => {
    const look = () => {
      if (seen.current.part(state) !== seen.current.found) redraw((count) => count + 1);
    };
    look(); // it may have changed between drawing and here
    return watch(look);
  }, []);
  return found;
}

/** @param {string} name @param {any} value what was typed; its old error goes */
export function setValue(name, value) {
  const {[name]: _, ...errors} = state.errors;
  set({values: {...state.values, [name]: value}, errors});
}

let saidTimer = 0;

/** @param {string} sentence shown for some seconds, and read out */
export function say(sentence) {
  clearTimeout(saidTimer);
  set({said: sentence});
  saidTimer = setTimeout(() => set({said: ''}), 5000);
}
