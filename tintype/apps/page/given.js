// Pictures that someone gives to a field: made to fit what the server takes.
import {now, set, setValue} from './store.js';
import {dataUrl, KINDS, opened} from './pictures.js';

const CELL = 8; // pixels that all sides are multiples of, with every model
const ANY_SIDE = ['upscale']; // tasks that take pictures of any sides
const AS_IT_IS = ['map']; // its pixels are numbers of classes, which nothing may mix

/** @param {File} file @returns {Promise<string>} a data URL of what is surely a picture; throws a sentence */
export async function pictureIn(file) {
  if (!KINDS.includes(file.type)) throw new Error('expected a PNG, JPEG or WebP file');
  const url = await dataUrl(file);
  await opened(url);
  return url;
}

/**
 * Into the form, as its task takes it. Throws a sentence for what does not fit.
 * @param {string} name the field @param {string} url a data URL
 * @param {() => boolean} [isStill] whether it is still wished for when it is ready
 */
export async function give(name, url, isStill = () => true) {
  const {capabilities, task} = now();
  const {body_bytes: most, largest_side: largest} = capabilities.limits;
  const picture = await opened(url);
  const made = AS_IT_IS.includes(name) ? null : fitted(picture, largest, ANY_SIDE.includes(task) ? 1 : CELL);
  const sent = made ?? url;
  if (sent.length > most) throw new Error(`the picture is too large; expected ${Math.floor((most * 3) / 4 / 2 ** 20)} MB at most`);
  if (!isStill()) return;
  if (now().values[name] !== sent) setValue(name, sent);
  if (!made) return;
  const {naturalWidth, naturalHeight} = await opened(made);
  const told = `${picture.naturalWidth} × ${picture.naturalHeight} was made ${naturalWidth} × ${naturalHeight} to fit`;
  set({fitted: {...now().fitted, [name]: {url: made, told}}});
}

/**
 * No larger than the server takes, and of whole cells: scaled down where it must be, and a strip of less than a cell cut
 * off around it, so that nothing is stretched.
 * @param {HTMLImageElement} picture @param {number} largest side @param {number} cell
 * @returns {string|null} null where it fits as it is
 */
function fitted(picture, largest, cell) {
  const {naturalWidth: width, naturalHeight: height} = picture;
  const most = largest - (largest % cell);
  const cells = (side, share) => Math.max(cell, Math.floor((side * share + 1e-6) / cell) * cell);
  const share = Math.min(1, most / Math.max(width, height));
  const to = {width: cells(width, share), height: cells(height, share)};
  if (to.width === width && to.height === height) return null;
  const scale = Math.max(share, to.width / width, to.height / height);
  const canvas = Object.assign(document.createElement('canvas'), to);
  const pen = canvas.getContext('2d');
  pen.imageSmoothingQuality = 'high';
  const [wide, high] = [width * scale, height * scale];
  pen.drawImage(picture, Math.round((to.width - wide) / 2), Math.round((to.height - high) / 2), wide, high);
  return canvas.toDataURL('image/png');
}
