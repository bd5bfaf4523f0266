// Sheets: a request for each pair of values.
import {valueOf} from './fields.js';

/** @param {string} text values with commas between; those with commas in them in quotes, as CSV has it */
export function listed(text) {
  const found = [...text.matchAll(/\s*(?:"((?:[^"]|"")*)"|([^,]*))\s*(?:,|$)/g)];
  return found.map(([, quoted, plain]) => quoted?.replaceAll('""', '"') ?? plain.trim()).filter((one) => one !== '');
}

/**
 * @param {{x: import('./store.js').Axis, y: import('./store.js').Axis}} axes
 * @param {Record<string, import('./fields.js').Field>} fields
 * @param {Record<string, any>} request
 * @returns {{across: string[], down: string[], cells: {x: number, y: number, request: object}[], errors: Record<string, string>}}
 */
export function cellsOf(axes, fields, request) {
  const errors = {};
  const values = (side) => {
    const {field, values: text} = axes[side];
    if (!field || !Object.hasOwn(fields, field)) return [undefined];
    const texts = listed(text);
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
  if (axes.x.field && axes.x.field === axes.y.field) errors.y = 'this one is taken across already; choose another';
  const [across, down] = [values('x'), values('y')];
  const seeded = 'seed' in request && request.seed >= 0 ? request : {...request, seed: drawnSeed()};
  const cells = down.flatMap((other, y) => across.map((one, x) => {
    const cell = {...seeded};
    if (axes.x.field) cell[axes.x.field] = one;
    if (axes.y.field) cell[axes.y.field] = other;
    return {x, y, request: cell};
  }));
  return {across: across.map(String), down: down.map(String), cells, errors};
}

/** @returns {number} one seed for all cells: what differs is then what the axes say */
const drawnSeed = () => crypto.getRandomValues(new Uint32Array(1))[0];
