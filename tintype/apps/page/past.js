// What a finished picture's kept steps tell: how it came about, and which word made which part.
import {html} from './html.js';
import {useSteps} from './steps.js';
import {Travel} from './panel-travel.js';
import {Why} from './panel-why.js';

/** Nothing where no steps were kept. @param {{job: object, place: number}} props a job that is done, which of its pictures */
export function Past({job, place, children}) {
  const steps = useSteps(job.id);
  if (steps.length === 0) return null;
  return html`<section class="past-of" aria-label="How it came about">${children}
    ${steps.length > 1 && html`<${Travel} key=${`${job.id} ${place} travel`} job=${job} place=${place} steps=${steps} />`}
    <${Why} key=${`${job.id} ${place} why`} job=${job} place=${place} steps=${steps} />
  </section>`;
}
