// A picture to begin with: chosen, dropped or pasted.
import {html, useEffect, useId, useRef, useState} from './html.js';
import {now, set, setValue, useStore} from './store.js';
import {wordFor} from './fields.js';
import {fileIn, KINDS, noPicture, opened} from './pictures.js';
import {give, pictureIn} from './given.js';
import {Problem} from './field.js';
import {Icon} from './icons.js';

/** @param {string} url @returns {{width: number, height: number}|null} of a data URL; null until it is known */
export function useSize(url) {
  const [size, setSize] = useState(null);
  useEffect(() => {
    let isCurrent = true;
    setSize(null);
    if (url) {
      opened(url).then((picture) => isCurrent && setSize({width: picture.naturalWidth, height: picture.naturalHeight}), () => {});
    }
    return () => (isCurrent = false);
  }, [url]);
  return size;
}

/** What was done to a picture so that the server takes it; done here where another task took it. @param {{name: string}} props the field */
export function Fitted({name}) {
  const found = useStore((state) => state.fitted[name]);
  const url = useStore((state) => state.values[name]);
  const task = useStore((state) => state.task);
  useEffect(() => {
    if (url) give(name, url, () => now().values[name] === url).catch((problem) => set({errors: {...now().errors, [name]: problem.message}}));
  }, [url, task]);
  return found && found.url === url && html`<p class="help fitted">${found.told}</p>`;
}

/** @param {{name: string, isLarge?: boolean}} props `isLarge`: it fills the stage */
export function PictureField({name, isLarge = false}) {
  const url = useStore((state) => state.values[name]);
  const error = useStore((state) => state.errors[name]);
  const help = useStore((state) => state.capabilities.tasks[state.task].fields[name]?.help);
  const [isOver, setOver] = useState(false);
  const size = useSize(url);
  const chooser = useRef(null);
  const id = useId();
  const take = async (file) => {
    if (!file) return;
    try {
      await give(name, await pictureIn(file));
    } catch (problem) {
      set({errors: {...now().errors, [name]: problem.message}});
    }
  };
  const drop = (event) => {
    event.preventDefault();
    setOver(false);
    const file = fileIn(event.dataTransfer);
    if (file) take(file);
    else set({errors: {...now().errors, [name]: noPicture(event.dataTransfer)}});
  };
  return html`<div class=${`field wide picture ${isLarge ? 'large' : ''} ${error ? 'wrong' : ''}`} data-field=${name}>
    <span class="label" id=${id}>${wordFor(name)}</span>
    <div class=${`drop ${isOver ? 'over' : ''} ${url ? 'full' : ''}`} onDragOver=${(event) => { event.preventDefault(); setOver(true); }}
      onDragLeave=${() => setOver(false)} onDrop=${drop}>
      ${url && html`<img class=${size && size.width <= 256 ? 'pixels' : ''} src=${url} alt=${`the chosen ${wordFor(name).toLowerCase()}`} />`}
      <div class="drop-words">
        <button type="button" aria-describedby=${`${id} help-${name}`} onClick=${() => chooser.current.click()}>
          ${url ? 'Choose another' : 'Choose a picture'}</button>
        <span>${url ? (size ? `${size.width} × ${size.height}` : '') : 'or drop or paste one here'}</span>
      </div>
      ${url && html`<button type="button" class="quiet round remove" aria-label=${`Remove the ${wordFor(name).toLowerCase()}`}
        onClick=${() => setValue(name, '')}><${Icon} name="close" /></button>`}
      <input ref=${chooser} class="unseen" type="file" accept=${KINDS.join(',')} tabindex="-1" aria-hidden="true"
        onChange=${(event) => { take(event.target.files[0]); event.target.value = ''; }} />
    </div>
    <${Fitted} name=${name} />
    <${Problem} name=${name} error=${error} help=${help} />
  </div>`;
}
