// How a picture was made, as it tells itself: our own JSON, or the "parameters" line that A1111 and others write.

const KEYS = {
  Steps: 'steps', Sampler: 'sampler', 'Schedule type': 'scheduler', 'CFG scale': 'cfg_scale', Seed: 'seed', Eta: 'eta',
  'Denoising strength': 'strength', 'Clip skip': 'clip_skip', 'Variation seed': 'variation_seed',
  'Variation seed strength': 'variation_strength', 'CFG rescale': 'cfg_rescale', 'Mask blur': 'mask_blur',
  'Hires upscale': 'hires_scale', 'Hires steps': 'hires_steps', Class: 'label', 'Upscale by': 'scale',
  'Noise level': 'noise_level', Tile: 'tile', 'Tile overlap': 'overlap', 'Image CFG scale': 'image_cfg_scale',
};
const SEEDS = 2 ** 32; // after the largest comes 0
const LONGEST = 10000; // characters of the line of settings; a longer one is none

/**
 * The request of one picture of a batch, alone: its seeds follow those of the first.
 * @param {Record<string, any>} batch @param {number} place
 */
export function aloneOf(batch, place) {
  const {batch_size: _, ...request} = batch;
  const seed = request.variation_strength > 0 ? 'variation_seed' : 'seed'; // variations are all of one seed
  return place === 0 ? request : {...request, [seed]: (request[seed] + place) % SEEDS};
}

/**
 * @param {Record<string, string>} texts of a PNG
 * @returns {{request: Record<string, any>, model: string}|null} null where it tells nothing
 */
export function requestIn(texts) {
  if (texts.tintype) {
    try {
      const made = JSON.parse(texts.tintype);
      if (made.request && typeof made.request === 'object') {
        return {request: aloneOf(made.request, made.position ?? 0), model: made.model ?? ''};
      }
    } catch {
      // damaged: the other text may still do
    }
  }
  return texts.parameters ? fromParameters(texts.parameters) : null;
}

/** @param {string} text A1111's grammar: prompt, negative prompt, `Key: value` pairs on the last line */
export function fromParameters(text) {
  const lines = text.trim().split('\n');
  const last = lines.at(-1);
  const pairs = last.length <= LONGEST ? pairsIn(last) : [];
  const above = pairs.length >= 3 ? lines.slice(0, -1) : lines; // as A1111 decides it
  const from = above.findIndex((line) => line.startsWith('Negative prompt:'));
  const request = {task: 'txt2img', prompt: above.slice(0, from < 0 ? undefined : from).join('\n').trim()};
  if (from >= 0) request.negative_prompt = above.slice(from).join('\n').replace('Negative prompt:', '').trim();
  let model = '';
  for (const [key, value] of pairs.length >= 3 ? pairs : []) {
    const size = key === 'Size' ? /^(\d+)x(\d+)$/.exec(value) : null;
    if (size) [request.width, request.height] = [size[1], size[2]];
    else if (key === 'Model') model = value;
    else if (Object.hasOwn(KEYS, key) && !(key === 'Schedule type' && value === 'Automatic')) request[KEYS[key]] = value;
  }
  if ('hires_scale' in request && 'strength' in request) {
    request.hires_strength = request.strength;
    delete request.strength;
  }
  return {request, model};
}

function pairsIn(line) {
  const found = [...line.matchAll(/\s*(\w[\w \-/]{1,60}):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)/g)];
  return found.map(([, key, value]) => {
    try {
      return [key, value.startsWith('"') ? JSON.parse(value) : value.trim()];
    } catch {
      return [key, value];
    }
  });
}
