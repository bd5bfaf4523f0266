// One picture, large, with how it was made and what can be done with it.
import {html, useEffect, useLayoutEffect, useRef, useState} from './html.js';
import {now, say, set, useStore} from './store.js';
import {ask} from './server.js';
import {removeJob} from './drawing.js';
import {loadMore} from './gallery-index.js';
import {fillWith} from './settings.js';
import {aloneOf} from './infotext.js';
import {wordFor} from './fields.js';
import {Picture} from './picture.js';
import {SendTo} from './send-to.js';
import {Past} from './past.js';
import {Icon} from './icons.js';

/** Of a picture, among those of its job. */
const placeOf = (picture) => Number(picture.url.split('/').at(-1));

export function Viewer() {
  const number = useStore((state) => state.opened);
  const pictures = useStore((state) => state.pictures);
  const place = pictures.findIndex((one) => one.number === number);
  const picture = pictures[place];
  const dialog = useRef(null);
  const [job, setJob] = useState(null);
  const [isAsked, setAsked] = useState(false); // whether to delete

  const before = useRef(null); // what had the focus
  useLayoutEffect(() => { // at once: a key that is pressed now is for it
    before.current = document.activeElement;
    dialog.current.showModal();
  }, []);
  useEffect(() => () => before.current?.focus?.(), []);
  useEffect(() => {
    setAsked(false);
    if (!picture) return undefined;
    let isCurrent = true;
    if (job?.id !== picture.job) setJob(null);
    ask(`v1/jobs/${picture.job}`).then((found) => isCurrent && setJob(found), (error) => isCurrent && say(error.message));
    if (place > pictures.length - 4) loadMore().catch(() => {}); // without them the last one is the last
    return () => (isCurrent = false);
  }, [number]);

  const close = () => set({opened: null});
  const go = (by) => pictures[place + by] && set({opened: pictures[place + by].number});
  const keys = (event) => {
    if (event.target.closest('input, textarea, select')) return;
    const by = {ArrowLeft: -1, ArrowRight: 1}[event.key];
    if (by === undefined) return;
    event.preventDefault();
    go(by);
  };
  const remove = async () => {
    const next = pictures.slice(place).find((one) => one.job !== picture.job) ?? pictures.slice(0, place).reverse().find((one) => one.job !== picture.job);
    try {
      await removeJob(picture.job);
      set({opened: next?.number ?? null});
    } catch (error) {
      say(error.message);
    }
  };
  if (!picture) return html`<dialog ref=${dialog} class="viewer" onClose=${close}></dialog>`;
  const count = job?.pictures.length ?? 1;
  const mine = job?.id === picture.job ? job : null;
  return html`<dialog ref=${dialog} class="viewer" aria-label="Picture" onKeyDown=${keys} onClose=${close}
    onCancel=${(event) => { event.preventDefault(); close(); }} onClick=${(event) => event.target === dialog.current && close()}>
    <div class="viewer-picture">
      <${Picture} key=${picture.url} path=${picture.url} alt=${picture.prompt || 'a picture without a prompt'} width=${picture.width} height=${picture.height} />
      <button type="button" class="quiet round go before" aria-label="Newer" disabled=${place === 0} onClick=${() => go(-1)}><${Icon} name="left" /></button>
      <button type="button" class="quiet round go after" aria-label="Older" disabled=${place === pictures.length - 1} onClick=${() => go(1)}><${Icon} name="right" /></button>
    </div>
    <div class="viewer-told">
      <button type="button" class="quiet round close" aria-label="Close" onClick=${close}><${Icon} name="close" /></button>
      <h2>${picture.prompt || mine?.request.label || mine?.request.boxes?.join(', ') || mine?.task || 'Picture'}</h2>
      <div class="buttons">
        <button type="button" class="primary" disabled=${!mine} onClick=${() => { fillWith(aloneOf(mine.request, placeOf(picture)), mine.model); say('Its settings are in the form'); }}>Use these settings</button>
      </div>
      <${SendTo} path=${picture.url} />
      ${mine && html`<${Past} key=${picture.url} job=${mine} place=${placeOf(picture)} />`}
      <dl class="metadata">
        ${mine && Object.entries({task: mine.task, model: mine.model, ...aloneOf(mine.request, placeOf(picture))}).filter(([name]) => name !== 'prompt').map(([name, value]) => html`
          <div key=${name}><dt>${wordFor(name)}</dt><dd>${Array.isArray(value) ? value.join('\n') : String(value)}</dd></div>`)}
        <div><dt>Pixels</dt><dd>${picture.width} × ${picture.height}</dd></div>
        <div><dt>Made</dt><dd>${new Date(picture.created * 1000).toLocaleString()}</dd></div>
      </dl>
      <div class="buttons">
        ${isAsked
          ? html`<button type="button" class="danger" onClick=${remove}>${count > 1 ? `Delete all ${count} of its batch` : 'Delete it for good'}</button>
            <button type="button" onClick=${() => setAsked(false)}>Keep</button>`
          : html`<button type="button" onClick=${() => setAsked(true)}>Delete…</button>`}
      </div>
    </div>
  </dialog>`;
}
