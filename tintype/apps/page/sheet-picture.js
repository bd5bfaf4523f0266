// A sheet as one picture: what SheetGrid shows, for others to see.
import {wordFor} from './fields.js';
import {fetched} from './server.js';

const SMALLEST = 192; // pixels of a cell's side: smaller pictures are enlarged by whole numbers, their pixels kept sharp
const LARGEST = 12000; // pixels of a side, which all browsers have canvases of
const GAP = 8;
const [PAPER, INK, SOFT] = ['#ffffff', '#1e1a16', '#665d53'];

/**
 * @param {NonNullable<import('./drawing.js').Drawing['sheet']>} sheet
 * @param {(block: number, row: number, column: number) => object|undefined} cellOf the job of a cell
 * @returns {Promise<Blob>} a PNG
 */
export async function sheetPicture({across, down, blocks, x, y, z}, cellOf) {
  const pictures = new Map();
  for (const [block, row, column] of places(blocks, down, across)) {
    const job = cellOf(block, row, column);
    if (job?.state === 'done') pictures.set(job, await createImageBitmap(await (await fetched(job.pictures[0])).blob()));
  }
  const most = Math.max(1, ...[...pictures.values()].map(({width, height}) => Math.max(width, height)));
  const enlarged = most < SMALLEST ? Math.ceil(SMALLEST / most) : 1;
  const count = {wide: across.length, high: down.length * blocks.length};
  const side = Math.min(most * enlarged, Math.floor(LARGEST / Math.max(count.wide + 1, count.high + blocks.length)) - GAP);
  const letters = Math.max(13, Math.round(side / 14));
  const [left, top, above] = [y ? Math.max(120, Math.round(side / 2)) : 0, x ? 3 * letters : 0, z ? 2.5 * letters : 0];
  const blockHigh = above + top + down.length * (side + GAP);

  const canvas = document.createElement('canvas');
  canvas.width = left + across.length * (side + GAP) + GAP;
  canvas.height = blocks.length * blockHigh + GAP;
  const pen = canvas.getContext('2d');
  pen.fillStyle = PAPER;
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.textBaseline = 'middle';
  const write = (text, middle, high, room, {align = 'center', isSoft = false} = {}) => {
    pen.font = `${isSoft ? 400 : 600} ${isSoft ? Math.round(0.8 * letters) : letters}px system-ui, sans-serif`;
    pen.fillStyle = isSoft ? SOFT : INK;
    pen.textAlign = align;
    pen.fillText(shortened(pen, text, room), middle, high);
  };
  const column = (number) => left + GAP + number * (side + GAP);
  for (const [block, value] of blocks.entries()) {
    const from = block * blockHigh + GAP;
    if (z) write(`${wordFor(z)} ${value}`, GAP, from + above / 2, canvas.width - 2 * GAP, {align: 'left'});
    if (x) {
      for (const [number, name] of across.entries()) {
        write(wordFor(x), column(number) + side / 2, from + above + 0.8 * letters, side, {isSoft: true});
        write(name, column(number) + side / 2, from + above + 2 * letters, side);
      }
    }
    for (const [row, name] of down.entries()) {
      const high = from + above + top + row * (side + GAP);
      if (y) {
        write(wordFor(y), left / 2, high + side / 2 - 0.6 * letters, left - GAP, {isSoft: true});
        write(name, left / 2, high + side / 2 + 0.6 * letters, left - GAP);
      }
      for (const number of across.keys()) {
        const picture = pictures.get(cellOf(block, row, number));
        if (!picture) continue;
        const scale = Math.min(side / picture.width, side / picture.height);
        const [wide, tall] = [picture.width * scale, picture.height * scale];
        pen.imageSmoothingEnabled = scale < 1;
        pen.drawImage(picture, column(number) + (side - wide) / 2, high + (side - tall) / 2, wide, tall);
      }
    }
  }
  return new Promise((resolve, reject) => canvas.toBlob((blob) => {
    if (blob) resolve(blob);
    else reject(new Error('the sheet is too large for this browser'));
  }));
}

function* places(blocks, down, across) {
  for (const block of blocks.keys()) for (const row of down.keys()) for (const column of across.keys()) yield [block, row, column];
}

/** @param {CanvasRenderingContext2D} pen @param {string} text @param {number} room pixels */
function shortened(pen, text, room) {
  if (pen.measureText(text).width <= room) return text;
  let length = Math.min(text.length, 200);
  while (length > 1 && pen.measureText(`${text.slice(0, length)}…`).width > room) length -= 1;
  return `${text.slice(0, length)}…`;
}
