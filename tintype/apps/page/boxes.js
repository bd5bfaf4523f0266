// Boxes as the server reads them: NAME:left,top,right,bottom, in parts of the picture's sides.

/** @typedef {{name: string, left: number, top: number, right: number, bottom: number}} Box */

const SMALLEST = 0.04;
const round = (value) => Math.round(value * 100) / 100;
const within = (value, most = 1) => Math.min(most, Math.max(0, value));

/** @param {string} text @returns {Box|null} null for what is none */
export function boxOf(text) {
  const [, name, numbers] = /^(.*):([^:]*)$/s.exec(text) ?? [];
  const [left, top, right, bottom] = (numbers ?? '').split(',').map(Number);
  return [left, top, right, bottom].every(Number.isFinite) && numbers ? {name, left, top, right, bottom} : null;
}

/** @param {Box} box */
export const textOf = ({name, left, top, right, bottom}) => `${name}:${[left, top, right, bottom].map(round).join(',')}`;

/** The box between two corners, anywhere. @returns {Box} */
export function between(name, from, to) {
  const [left, right] = [within(from.x), within(to.x)].sort((one, other) => one - other);
  const [top, bottom] = [within(from.y), within(to.y)].sort((one, other) => one - other);
  return {name, left: round(left), top: round(top), right: round(right), bottom: round(bottom)};
}

/** @param {Box} box @returns {boolean} whether it is one, and no slip of the hand */
export const isLargeEnough = (box) => box.right - box.left >= SMALLEST && box.bottom - box.top >= SMALLEST;

/** @param {Box} box @returns {Box} moved, but not out of the picture */
export function moved(box, x, y) {
  const left = within(box.left + x, 1 - (box.right - box.left));
  const top = within(box.top + y, 1 - (box.bottom - box.top));
  return {...box, left: round(left), top: round(top), right: round(left + box.right - box.left), bottom: round(top + box.bottom - box.top)};
}

/** @param {Box} box @param {'left'|'right'} across @param {'top'|'bottom'} down the corner that is pulled @returns {Box} */
export function resized(box, across, down, x, y) {
  const next = {...box};
  const pulled = (name, by) => {
    const isStart = name === 'left' || name === 'top';
    const other = {left: 'right', right: 'left', top: 'bottom', bottom: 'top'}[name];
    const to = within(box[name] + by);
    next[name] = round(isStart ? Math.min(to, box[other] - SMALLEST) : Math.max(to, box[other] + SMALLEST));
  };
  pulled(across, x);
  pulled(down, y);
  return next;
}
