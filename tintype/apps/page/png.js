// The texts inside a PNG: its tEXt, zTXt and iTXt chunks (PNG specification, 11.3.4).

const SIGNATURE = [137, 80, 78, 71, 13, 10, 26, 10];
const LONGEST = 4 * 2 ** 20; // characters of a text; more is no settings

/**
 * Texts by keyword; none for what is no PNG. The file comes from anywhere, so lengths are checked and all else is left.
 * @param {ArrayBuffer} content
 * @returns {Promise<Record<string, string>>}
 */
export async function textsOf(content) {
  const bytes = new Uint8Array(content);
  const view = new DataView(content);
  const found = {};
  if (!SIGNATURE.every((byte, place) => bytes[place] === byte)) return found;
  let place = 8;
  while (place + 12 <= bytes.length) {
    const length = view.getUint32(place);
    const kind = latin(bytes.subarray(place + 4, place + 8));
    const data = bytes.subarray(place + 8, place + 8 + length);
    if (data.length < length || kind === 'IEND') break;
    if (length <= LONGEST && ['tEXt', 'zTXt', 'iTXt'].includes(kind)) {
      const [name, text] = await textIn(kind, data);
      if (name && text !== null) found[name] ??= text;
    }
    place += 12 + length;
  }
  return found;
}

async function textIn(kind, data) {
  const [name, rest] = cut(data);
  if (kind === 'tEXt') return [latin(name), latin(rest)];
  if (kind === 'zTXt') return [latin(name), latin(await inflated(rest.subarray(1)))];
  const [isPacked] = rest;
  const [, afterLanguage] = cut(rest.subarray(2));
  const [, text] = cut(afterLanguage);
  return [latin(name), new TextDecoder().decode(isPacked ? await inflated(text) : text)];
}

function cut(bytes) {
  const zero = bytes.indexOf(0);
  return zero < 0 ? [bytes, new Uint8Array()] : [bytes.subarray(0, zero), bytes.subarray(zero + 1)];
}

const latin = (bytes) => new TextDecoder('latin1').decode(bytes);

async function inflated(bytes) {
  const reader = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('deflate')).getReader();
  const parts = [];
  let length = 0;
  for (;;) {
    const {done, value} = await reader.read().catch(() => ({done: true})); // damaged: as far as it goes
    if (done) break;
    length += value.length;
    if (length > LONGEST) break;
    parts.push(value);
  }
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}
