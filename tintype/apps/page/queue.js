// Jobs that wait or are drawn, with a way to end each.
import {html} from './html.js';
import {useStore} from './store.js';
import {active, cancelJob, followedJob} from './drawing.js';
import {sentenceOf} from './result.js';
import {Icon} from './icons.js';

export function Queue() {
  const jobs = useStore((state) => state.jobs);
  const followed = useStore((state) => followedJob(state)?.id);
  const waiting = active({jobs});
  if (waiting.length === 0 || (waiting.length === 1 && waiting[0].id === followed)) return null;
  return html`<section class="queue" aria-labelledby="queue-title">
    <h2 id="queue-title">Queue <small>${waiting.length}</small></h2>
    <ol>${waiting.map((job) => html`<li key=${job.id}>
      <span class="queue-name">${job.request.prompt || job.request.label || (job.request.boxes ?? []).join(' ') || job.task}</span>
      <span class="queue-state">${sentenceOf(job)}</span>
      <button type="button" class="quiet round" aria-label=${`Cancel ${job.request.prompt || job.task}`} onClick=${() => cancelJob(job.id)}>
        <${Icon} name="close" /></button>
    </li>`)}</ol>
  </section>`;
}
