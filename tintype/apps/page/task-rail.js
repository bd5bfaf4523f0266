// Which task: a rail where there is room, a menu where there is not (CSS shows one of them).
import {html} from './html.js';
import {useStore} from './store.js';
import {TASKS, tasksOf} from './fields.js';
import {begin, isPossible} from './models.js';
import {Icon} from './icons.js';

const NONE = 'no model';

export function TaskRail() {
  const capabilities = useStore((state) => state.capabilities);
  const task = useStore((state) => state.task);
  const names = tasksOf(capabilities);
  return html`
    <nav class="rail" aria-label="Tasks">
      ${names.map((name) => {
        const isThere = isPossible(capabilities, name);
        const {help} = capabilities.tasks[name];
        return html`<button key=${name} type="button" class="task" title=${isThere ? help : `${help}: no model on this server can do it`}
          disabled=${!isThere} aria-current=${task === name ? 'true' : undefined} data-task=${name} onClick=${() => begin(name)}>
          <${Icon} name=${name} /><span>${TASKS[name] ?? name}${!isThere && html` <small>${NONE}</small>`}</span></button>`;
      })}
    </nav>
    <label class="task-menu"><span>Task</span>
      <select value=${task} onChange=${(event) => begin(event.target.value)}>
        ${names.map((name) => html`<option key=${name} value=${name} disabled=${!isPossible(capabilities, name)}>
          ${TASKS[name] ?? name}: ${isPossible(capabilities, name) ? capabilities.tasks[name].help : `${NONE} here`}</option>`)}
      </select>
    </label>`;
}
