// Sheets: a request for each combination of values.
import {valueOf} from './fields.js';

export const SIDES = {x: 'Across', y: 'Down', z: 'Blocks'};

/** @param {import('./store.js').State['axes']} axes @returns {boolean} whether any is used */
export const hasAxes = (axes) => Object.keys(SIDES).some((side) => axes[side].field);

/** @param {string} text values with commas between; those with commas in them in quotes, as CSV has it */
export function listed(text) {
  const found = [...text.matchAll(/\s*(?:"((?:[^"]|"")*)"|([^,]*))\s*(?:,|$)/g)];
  return found.map(([, quoted, plain]) => quoted?.replaceAll('""', '"') ?? plain.trim()).filter((one) => one !== '');
}

/**
 * Cells in the order in which they are read: across, then down, then the next block.
 * @param {import('./store.js').State['axes']} axes
 * @param {Record<string, import('./fields.js').Field>} fields
 * @param {Record<string, any>} request
 * @returns {{sheet: import('./drawing.js').Sheet, cells: object[], errors: Record<string, string>}}
 */
export function cellsOf(axes, fields, request) {
  const errors = {};
  const used = Object.keys(SIDES).filter((side) => Object.hasOwn(fields, axes[side].field));
  const values = (side) => {
    const {field} = axes[side];
    if (!used.includes(side)) return [undefined];
    const texts = listed(axes[side].values);
    if (texts.length === 0) errors[side] = 'expected values with commas between, such as 1, 3, 6';
    return texts.map((one) => {
      try {
        const kind = fields[field].kind;
        if (kind === 'choice' && !fields[field].options.includes(one)) throw new Error(`expected ${fields[field].options.join(', ')}`);
        return kind === 'flag' ? ['true', 'yes', 'on', '1'].includes(one) : valueOf(fields[field], one);
      } catch (error) {
        errors[side] = error.message;
        return undefined;
      }
    });
  };
  const [across, down, blocks] = Object.keys(SIDES).map(values);
  for (const [place, side] of used.entries()) {
    const other = used.slice(0, place).find((one) => axes[one].field === axes[side].field);
    if (other) errors[side] = `${SIDES[other]} has this one already; choose another`;
  }
  const seeded = 'seed' in request && request.seed >= 0 ? request : {...request, seed: drawnSeed()};
  const cell = (chosen) => ({...seeded, ...Object.fromEntries(used.map((side) => [axes[side].field, chosen[side]]))});
  const cells = blocks.flatMap((z) => down.flatMap((y) => across.map((x) => cell({x, y, z}))));
  const named = Object.fromEntries(Object.keys(SIDES).map((side) => [side, used.includes(side) ? axes[side].field : '']));
  return {sheet: {across: across.map(String), down: down.map(String), blocks: blocks.map(String), ...named}, cells, errors};
}

/** @returns {number} one seed for all cells: what differs is then what the axes say */
const drawnSeed = () => crypto.getRandomValues(new Uint32Array(1))[0];
