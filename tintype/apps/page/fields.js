// Fields of a request as /v1/capabilities describes them: their order, their words, and what was typed as values.

/**
 * @typedef {object} Field
 * @property {'text'|'texts'|'loras'|'integer'|'number'|'flag'|'choice'|'picture'} kind
 * @property {string} help
 * @property {any} default
 * @property {number} [least]
 * @property {number} [most]
 * @property {string[]} [options]
 */

const PROMPTS = ['prompt', 'negative_prompt', 'label'];
const FIRST = ['strength', 'scale', 'image_cfg_scale', 'steps', 'cfg_scale', 'seed', 'batch_size', 'width', 'height'];
const SIDES = ['left', 'right', 'top', 'bottom'];
const WORDS = {
  cfg_scale: 'Guidance', batch_size: 'Pictures', negative_prompt: 'Keep away', label: 'Class', scale: 'Enlarge',
  image_cfg_scale: 'Guidance by the picture', cfg_start: 'Guidance from', cfg_end: 'Guidance until',
  cfg_rescale: 'Guidance rescaled', pag_scale: 'Perturbed attention', prompt_2: 'Second prompt',
  negative_prompt_2: 'Second keep away', mask_invert: 'Paint where it is black', only_masked: 'Only the masked part', 'sheet x': 'Across', 'sheet y': 'Down', 'sheet z': 'Blocks', lora: 'LoRAs',
};
export const TASKS = {
  txt2img: 'Text', img2img: 'Picture', inpaint: 'Inpaint', outpaint: 'Outpaint', layout2img: 'Boxes',
  class2img: 'Class', upscale: 'Upscale', edit: 'Edit', depth2img: 'Depth', map2img: 'Map', sample: 'Sample',
};

/** @param {string} name @returns {string} what a person calls it */
export function wordFor(name) {
  const plain = name.replaceAll('_', ' ');
  return WORDS[name] ?? plain[0].toUpperCase() + plain.slice(1);
}

/** @param {object} capabilities @returns {string[]} tasks, those of `TASKS` first and the unknown after them */
export function tasksOf(capabilities) {
  const there = Object.keys(capabilities.tasks);
  return [...Object.keys(TASKS).filter((name) => there.includes(name)), ...there.filter((name) => !(name in TASKS))];
}

/**
 * The fields of a task by where the form has them. New ones, which this file has never heard of, are found as well:
 * pictures and lists of texts in front, all others under "more".
 * @param {Record<string, Field>} fields
 * @returns {{prompts: string[], inputs: string[], first: string[], sides: string[], loras: string[], more: string[]}}
 */
export function placed(fields) {
  const names = Object.keys(fields);
  const inputs = names.filter((name) => ['picture', 'texts'].includes(fields[name].kind));
  const have = (list) => list.filter((name) => name in fields);
  const loras = names.filter((name) => fields[name].kind === 'loras');
  const taken = new Set([...PROMPTS, ...FIRST, ...SIDES, ...inputs, ...loras]);
  return {
    prompts: have(PROMPTS), inputs, first: have(FIRST), sides: have(SIDES), loras,
    more: names.filter((name) => !taken.has(name)),
  };
}

/** @param {Field} field @returns {boolean} whether its value is a list of texts */
export const isList = (field) => field.kind === 'texts' || field.kind === 'loras';

/** @param {any} typed @returns {boolean} whether nothing was */
export const isBlank = (typed) =>
  typed === undefined || typed === null || typed === '' || (Array.isArray(typed) && typed.length === 0);

/**
 * What was typed, as JSON has it; undefined for nothing. Throws a sentence for what cannot be.
 * @param {Field} field
 * @param {any} typed
 */
export function valueOf(field, typed) {
  if (isBlank(typed)) return undefined;
  if (field.kind === 'flag') return typed === true || typed === 'true' ? true : undefined;
  if (isList(field)) return Array.isArray(typed) ? typed : [typed];
  if (field.kind !== 'integer' && field.kind !== 'number') return String(typed);
  const text = String(typed).trim().replace(',', '.');
  const whole = field.kind === 'integer';
  const kind = whole ? 'a whole number' : 'a number';
  if (!(whole ? /^[-+]?\d+$/ : /^[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$/i).test(text)) {
    throw new Error(`“${typed}” is not ${kind}`);
  }
  const value = Number(text);
  if (value < field.least || value > field.most) throw new Error(`expected ${kind} from ${field.least} to ${field.most}`);
  return value;
}

/**
 * The JSON of a job, and what is wrong with which field.
 * @param {Record<string, Field>} fields
 * @param {Record<string, any>} values
 * @returns {{request: Record<string, any>, errors: Record<string, string>}}
 */
export function requestOf(fields, values) {
  const request = {};
  const errors = {};
  for (const [name, field] of Object.entries(fields)) {
    try {
      const value = valueOf(field, values[name]);
      if (value !== undefined) request[name] = value;
    } catch (error) {
      errors[name] = error.message;
    }
  }
  return {request, errors};
}

const ALSO = [[/^box|^no boxes/, 'boxes'], [/^nothing to add/, 'right'], [/begins with a picture|no picture/, 'image'],
  [/\bmask\b/, 'mask'], [/^no prompt/, 'prompt'], [/\bclass(es)?\b/, 'label']];

/**
 * The field that a sentence of the server is about; '' for none. Its sentences begin with the field's name, nearly.
 * @param {string} sentence
 * @param {string[]} names
 */
export function fieldNamedIn(sentence, names) {
  const head = sentence.slice(0, 80);
  const named = names
    .map((name) => ({name, at: head.search(new RegExp(`(^|[^\\w-])${name}(?!\\w)`))}))
    .filter(({at}) => at >= 0 && at < 24)
    .sort((one, other) => one.at - other.at || other.name.length - one.name.length);
  if (named.length > 0) return named[0].name;
  return ALSO.find(([pattern, name]) => names.includes(name) && pattern.test(head))?.[1] ?? '';
}
