// Which words made which part: for each word a small map of where the network listened to it, over the steps.
import {html, useEffect, useRef, useState} from './html.js';
import {useLatest} from './steps.js';

/** @param {{job: object, place: number, steps: number[]}} props a job, the picture's place in it, its kept steps */
export function Why({job, place, steps}) {
  const [at, setAt] = useState(Math.floor(steps.length / 3)); // where what is where is settled
  const [isOpen, setOpen] = useState(false);
  const path = `v1/jobs/${job.id}/steps/${steps[at]}/words?place=${place}`;
  const {found, problem} = useLatest(isOpen ? path : '', (answer) => answer.json());
  return html`<details class="why" onToggle=${(event) => setOpen(event.target.open)}>
    <summary>Why: which word was heard where</summary>
    <label class="field">After step ${steps[at] + 1} of ${steps.at(-1) + 1}
      <input type="range" min="0" max=${steps.length - 1} value=${at} onInput=${(event) => setAt(Number(event.target.value))} /></label>
    <p class="help">${problem || 'Each map is as bright as it gets where its word was heard most; the number says how much that was.'}</p>
    <ul class="words">${found?.words.map((word, number) => html`<li key=${number}>
      <${Heat} map=${found.maps[number]} word=${word} /></li>`)}</ul>
  </details>`;
}

/** A map as a picture of its own cells, by its own largest share; dark where the word was not heard. */
function Heat({map, word}) {
  const canvas = useRef(null);
  const most = largestIn(map);
  useEffect(() => {
    const pen = canvas.current.getContext('2d');
    const cells = pen.createImageData(map[0].length, map.length);
    map.flat().forEach((share, number) => cells.data.set([255, 140, 60, most > 0 ? Math.round((255 * share) / most) : 0], 4 * number));
    pen.putImageData(cells, 0, 0);
  }, [map]);
  return html`<canvas ref=${canvas} class="heat" width=${map[0].length} height=${map.length} role="img"
    aria-label=${`Where “${word}” was heard`} /><span>${word}</span> <small>${percent(most)}</small>`;
}

function largestIn(map) {
  let most = 0; // a loop: a map has more cells than a function takes arguments
  for (const row of map) for (const share of row) most = Math.max(most, share);
  return most;
}

const percent = (share) => `${share < 0.0995 ? (100 * share).toFixed(1) : Math.round(100 * share)} %`;
