// The estimates of all steps, to go back and forth in, beneath a finished picture; and another way on from each.
import {html, useEffect, useState} from './html.js';
import {useStore} from './store.js';
import {branch} from './drawing.js';
import {useLatest} from './steps.js';

const FROM_PICTURES = ['image', 'mask', 'depth', 'map'];
const SMALL = 256; // pixels of a side; below, each is worth seeing

/** @param {{job: object, place: number, steps: number[]}} props a job that is done, which of its pictures, its kept steps */
export function Travel({job, place, steps}) {
  const [at, setAt] = useState(steps.length - 1);
  const [url, setUrl] = useState('');
  const prompt = useStore((state) => ('prompt' in state.capabilities.tasks[job.task].fields ? state.values.prompt : ''));
  const step = steps[at];
  const {path, found, problem} = useLatest(`v1/jobs/${job.id}/steps/${step}?place=${place}`, (answer) => answer.blob());
  useEffect(() => {
    if (!found) return undefined;
    const made = URL.createObjectURL(found);
    setUrl(made);
    return () => URL.revokeObjectURL(made);
  }, [found]);

  const label = `after step ${step + 1} of ${steps.at(-1) + 1}`;
  const isShown = path.includes(`/steps/${step}?`);
  const canBranch = step < steps.at(-1) && !FROM_PICTURES.some((name) => name in job.request);
  return html`<section class="travel" aria-label="Time travel">
    <div class="frame past" aria-busy=${!isShown}>${url && html`<img class="pixels" src=${url} alt=${`The estimate ${label}`}
      onLoad=${({target}) => target.classList.toggle('pixels', Math.max(target.naturalWidth, target.naturalHeight) <= SMALL)} />`}</div>
    <label class="field">Back in time, ${label}
      <input type="range" min="0" max=${steps.length - 1} value=${at} aria-valuetext=${label}
        onInput=${(event) => setAt(Number(event.target.value))} />
      ${problem && html`<p class="help">${problem}</p>`}</label>
    ${canBranch && html`<button type="button" onClick=${() => branch(job, step)}>
      Go on from here with ${prompt ? `“${prompt.length > 60 ? `${prompt.slice(0, 60)}…` : prompt}”` : 'the form as it is now'}</button>`}
  </section>`;
}
