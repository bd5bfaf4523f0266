// The estimates of all steps, to go back and forth in, beneath the finished picture; and another way on from each.
import {html, useEffect, useState} from './html.js';
import {branch} from './drawing.js';
import {Picture} from './picture.js';
import {ask} from './server.js';

const FROM_PICTURES = ['image', 'mask', 'depth', 'map'];

/** @param {{job: object}} props a job that is done */
export function Travel({job}) {
  const [steps, setSteps] = useState([]);
  const [place, setPlace] = useState(0);
  useEffect(() => {
    let isCurrent = true;
    ask(`v1/jobs/${job.id}/steps`).then((told) => {
      if (!isCurrent) return;
      setSteps(told.steps);
      setPlace(told.steps.length - 1);
    }, () => isCurrent && setSteps([])); // not kept: there is nothing to show
    return () => (isCurrent = false);
  }, [job.id]);
  if (steps.length < 2) return null;

  const step = steps[place];
  const label = `after step ${step + 1} of ${steps.at(-1) + 1}`;
  const canBranch = step < steps.at(-1) && !FROM_PICTURES.some((name) => name in job.request);
  return html`<section class="travel" aria-label="Time travel">
    <div class="frame past"><${Picture} path=${`v1/jobs/${job.id}/steps/${step}`} alt=${`The estimate ${label}`}
      width=${job.request.width ?? 64} height=${job.request.height ?? 64} /></div>
    <label class="field">Back in time, ${label}
      <input type="range" min="0" max=${steps.length - 1} value=${place} aria-valuetext=${label}
        onInput=${(event) => setPlace(Number(event.target.value))} /></label>
    ${canBranch && html`<button type="button" onClick=${() => branch(job, step)}>Go on from here with the prompt as it is now</button>`}
  </section>`;
}
