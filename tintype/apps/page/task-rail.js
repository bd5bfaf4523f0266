// Which task: a rail where there is room, a menu where there is not (CSS shows one of them).
import {html} from './html.js';
import {set, useStore} from './store.js';
import {TASKS, tasksOf} from './fields.js';
import {Icon} from './icons.js';

export function TaskRail() {
  const capabilities = useStore((state) => state.capabilities);
  const task = useStore((state) => state.task);
  const choose = (name) => set({task: name, errors: {}});
  const names = tasksOf(capabilities);
  return html`
    <nav class="rail" aria-label="Tasks">
      ${names.map((name) => html`<button key=${name} type="button" class="task" title=${capabilities.tasks[name].help}
        aria-current=${task === name ? 'true' : undefined} data-task=${name} onClick=${() => choose(name)}>
        <${Icon} name=${name} /><span>${TASKS[name] ?? name}</span></button>`)}
    </nav>
    <label class="task-menu"><span>Task</span>
      <select value=${task} onChange=${(event) => choose(event.target.value)}>
        ${names.map((name) => html`<option key=${name} value=${name}>${TASKS[name] ?? name}: ${capabilities.tasks[name].help}</option>`)}
      </select>
    </label>`;
}
