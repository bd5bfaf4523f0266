// Which words made which part: for each word a small map of where the network listened to it, over the steps.
import {html, useEffect, useRef, useState} from './html.js';
import {ask} from './server.js';

/** @param {{job: object, place: number}} props the job, and the picture's place in it */
export function Why({job, place}) {
  const [steps, setSteps] = useState([]);
  const [at, setAt] = useState(0);
  const [told, setTold] = useState(null);
  const [isOpen, setOpen] = useState(false);
  useEffect(() => {
    let isCurrent = true;
    ask(`v1/jobs/${job.id}/steps`).then((found) => {
      if (!isCurrent) return;
      setSteps(found.steps);
      setAt(Math.floor(found.steps.length / 3)); // where what is where is settled
    }, () => isCurrent && setSteps([]));
    return () => (isCurrent = false);
  }, [job.id]);
  useEffect(() => {
    if (!isOpen || steps.length === 0) return undefined;
    let isCurrent = true;
    ask(`v1/jobs/${job.id}/steps/${steps[at]}/words?place=${place}`).then(
      (found) => isCurrent && setTold({...found, problem: ''}),
      (error) => isCurrent && setTold({words: [], maps: [], problem: error.message}));
    return () => (isCurrent = false);
  }, [job.id, place, at, isOpen, steps]);
  if (steps.length === 0) return null;
  const most = told ? Math.max(...told.maps.flat(2), 1e-9) : 1;
  return html`<details class="why" onToggle=${(event) => setOpen(event.target.open)}>
    <summary>Why: which word was heard where</summary>
    <label class="field">After step ${steps[at] + 1} of ${steps.at(-1) + 1}
      <input type="range" min="0" max=${steps.length - 1} value=${at} onInput=${(event) => setAt(Number(event.target.value))} /></label>
    ${told?.problem && html`<p class="help">${told.problem}</p>`}
    <ul class="words">${told?.words.map((word, number) => html`<li key=${number}>
      <${Heat} map=${told.maps[number]} most=${most} word=${word} /><span>${word}</span></li>`)}</ul>
  </details>`;
}

/** A map as a picture of its own cells; dark where the word was not heard. */
function Heat({map, most, word}) {
  const canvas = useRef(null);
  useEffect(() => {
    const pen = canvas.current.getContext('2d');
    const cells = pen.createImageData(map[0].length, map.length);
    map.flat().forEach((share, number) => cells.data.set([255, 140, 60, Math.round(255 * share / most)], 4 * number));
    pen.putImageData(cells, 0, 0);
  }, [map, most]);
  return html`<canvas ref=${canvas} class="heat" width=${map[0].length} height=${map.length} role="img"
    aria-label=${`Where “${word}” was heard`} />`;
}
