// A picture that was dropped on no field, while the form asks for none: what can be begun with it.
import {html, useEffect, useRef} from './html.js';
import {now, set, useStore} from './store.js';
import {begin, isPossible} from './models.js';
import {TASKS} from './fields.js';
import {give} from './given.js';
import {SENT} from './send-to.js';
import {Icon} from './icons.js';

export function Offer() {
  const offered = useStore((state) => state.offered);
  const buttons = useRef(null);
  useEffect(() => buttons.current?.querySelector('button').focus(), [offered]);
  if (!offered) return null;
  const {name, url} = offered;
  const close = () => set({offered: null});
  const {capabilities} = now();
  const use = async (task) => {
    begin(task, {view: 'draw', opened: null, offered: null});
    await give('image', url);
  };
  return html`<section class="offer" role="alertdialog" aria-labelledby="offer-title" onKeyDown=${(event) => event.key === 'Escape' && close()}>
    <img src=${url} alt="" />
    <p id="offer-title">${name} does not tell how it was made. Begin with it?</p>
    <div class="buttons" ref=${buttons}>${SENT.filter((task) => task in capabilities.tasks && isPossible(capabilities, task)).map((task) => html`
      <button key=${task} type="button" onClick=${() => use(task)}>${TASKS[task]}</button>`)}
      <button type="button" class="quiet round" aria-label="No" onClick=${close}><${Icon} name="close" /></button></div>
  </section>`;
}
