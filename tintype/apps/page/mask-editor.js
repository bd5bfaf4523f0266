// A mask, painted over the picture: with pointer or keys.
import {html, useEffect, useRef, useState} from './html.js';
import {now, setValue, useStore} from './store.js';
import {opened} from './pictures.js';
import {Fitted, PictureField, useSize} from './picture-field.js';
import {Problem} from './field.js';
import {Icon} from './icons.js';

const HAS_MOUSE = matchMedia('(pointer: fine)').matches;
const UNDONE = 40; // strokes that can be taken back
const READ = {willReadFrequently: true}; // all of it, after each stroke

/** A round brush of whole pixels, so that what is seen is what is sent. */
function dab(context, x, y, size) {
  const middle = (size - 1) / 2;
  for (let row = 0; row < size; row++) {
    const half = Math.sqrt(Math.max(0.25, (size / 2) ** 2 - (row - middle) ** 2));
    context.fillRect(Math.round(x - half), Math.round(y - size / 2 + row), Math.max(1, Math.round(2 * half)), 1);
  }
}

function line(context, from, to, size) {
  const count = Math.max(1, Math.ceil(Math.hypot(to.x - from.x, to.y - from.y) / Math.max(1, size / 4)));
  for (let place = 0; place <= count; place++) {
    dab(context, from.x + ((to.x - from.x) * place) / count, from.y + ((to.y - from.y) * place) / count, size);
  }
}

/** What is sent: white where something is painted, black elsewhere; '' for nothing painted. */
function maskOf(canvas) {
  const {width, height} = canvas;
  const painted = canvas.getContext('2d', READ).getImageData(0, 0, width, height);
  let count = 0;
  for (let place = 0; place < painted.data.length; place += 4) {
    const isPainted = painted.data[place + 3] > 127;
    count += isPainted;
    painted.data.fill(isPainted ? 255 : 0, place, place + 3);
    painted.data[place + 3] = 255;
  }
  if (count === 0) return '';
  const sent = document.createElement('canvas');
  Object.assign(sent, {width, height});
  sent.getContext('2d').putImageData(painted, 0, 0);
  return sent.toDataURL('image/png');
}

/** The mask of the form back onto the canvas. */
async function shown(canvas, mask) {
  const context = canvas.getContext('2d', READ);
  context.clearRect(0, 0, canvas.width, canvas.height);
  if (!mask) return;
  context.drawImage(await opened(mask), 0, 0, canvas.width, canvas.height);
  const pixels = context.getImageData(0, 0, canvas.width, canvas.height);
  for (let place = 0; place < pixels.data.length; place += 4) pixels.data[place + 3] = pixels.data[place] > 127 ? 255 : 0;
  context.putImageData(tinted(pixels), 0, 0);
}

function tinted(pixels) {
  for (let place = 0; place < pixels.data.length; place += 4) pixels.data.set([214, 92, 30], place);
  return pixels;
}

export function MaskEditor() {
  const image = useStore((state) => state.values.image);
  const size = useSize(image);
  if (!image || !size) return html`<section class="pane editor" aria-label="Mask"><${PictureField} key="image" name="image" isLarge /></section>`;
  return html`<${Painting} key=${image} image=${image} size=${size} />`;
}

function Painting({image, size}) {
  const mask = useStore((state) => state.values.mask);
  const error = useStore((state) => state.errors.mask ?? state.errors.image);
  const [brush, setBrush] = useState(Math.max(3, Math.round(Math.max(size.width, size.height) / 6)));
  const [isErasing, setErasing] = useState(false);
  const [ring, setRing] = useState(null); // where the brush is, in the picture's pixels
  const [isDown, setDown] = useState(false); // the pen of the keyboard
  const canvas = useRef(null);
  const strokes = useRef([]); // the canvas before each, for undo
  const [undoable, setUndoable] = useState(0);
  const last = useRef(null);
  const sent = useRef(undefined);

  useEffect(() => {
    if (mask !== sent.current) shown(canvas.current, mask);
    sent.current = mask;
  }, [mask]);

  const context = () => canvas.current.getContext('2d', READ);
  const remember = () => {
    strokes.current = [...strokes.current.slice(1 - UNDONE), context().getImageData(0, 0, size.width, size.height)];
    setUndoable(strokes.current.length);
  };
  const keep = () => {
    sent.current = maskOf(canvas.current);
    setValue('mask', sent.current);
  };
  const stroke = (from, to, erases = isErasing) => {
    const drawn = context();
    drawn.globalCompositeOperation = erases ? 'destination-out' : 'source-over';
    drawn.fillStyle = 'rgb(214 92 30)';
    line(drawn, from, to, brush);
  };
  const at = (event) => {
    const {left, top, width, height} = canvas.current.getBoundingClientRect();
    return {x: ((event.clientX - left) / width) * size.width, y: ((event.clientY - top) / height) * size.height};
  };

  const press = (event) => {
    if (event.button > 2) return;
    event.preventDefault();
    canvas.current.focus({preventScroll: true});
    canvas.current.setPointerCapture(event.pointerId);
    remember();
    last.current = {...at(event), erases: isErasing || event.button === 2};
    stroke(last.current, last.current, last.current.erases);
  };
  const move = (event) => {
    const place = at(event);
    setRing(place);
    if (!last.current) return;
    stroke(last.current, place, last.current.erases);
    last.current = {...place, erases: last.current.erases};
  };
  const release = () => {
    if (!last.current) return;
    last.current = null;
    keep();
  };

  const undo = () => {
    const before = strokes.current.pop();
    if (!before) return;
    context().putImageData(before, 0, 0);
    setUndoable(strokes.current.length);
    keep();
  };
  const all = (change) => {
    remember();
    const pixels = context().getImageData(0, 0, size.width, size.height);
    for (let place = 3; place < pixels.data.length; place += 4) pixels.data[place] = change(pixels.data[place] > 127) ? 255 : 0;
    context().putImageData(tinted(pixels), 0, 0);
    keep();
  };
  const resize = (to) => setBrush(Math.min(Math.max(size.width, size.height), Math.max(1, to)));

  const keys = (event) => {
    const by = event.shiftKey ? Math.max(2, Math.round(size.width / 8)) : Math.max(1, Math.round(size.width / 64));
    const [x, y] = {ArrowLeft: [-by, 0], ArrowRight: [by, 0], ArrowUp: [0, -by], ArrowDown: [0, by]}[event.key] ?? [0, 0];
    const from = ring ?? {x: size.width / 2, y: size.height / 2};
    if (event.key.startsWith('Arrow')) {
      const to = {x: Math.min(size.width, Math.max(0, from.x + x)), y: Math.min(size.height, Math.max(0, from.y + y))};
      setRing(to);
      if (isDown) {
        stroke(from, to);
        keep();
      }
    } else if (event.key === ' ') {
      setRing(from);
      if (!isDown) {
        remember();
        stroke(from, from);
        keep();
      }
      setDown(!isDown);
    } else if (event.key === '[') resize(brush - 1);
    else if (event.key === ']') resize(brush + 1);
    else if (event.key === 'e') setErasing(!isErasing);
    else if (event.key === 'i') all((isPainted) => !isPainted);
    else if (event.key === 'z' && (event.ctrlKey || event.metaKey)) undo();
    else return;
    event.preventDefault();
  };

  const percent = (value, whole) => `${(100 * value) / whole}%`;
  return html`<section class="pane editor mask" aria-label="Mask">
    <div class="frame"><div class="layers" style=${{aspectRatio: `${size.width} / ${size.height}`}} data-tall=${size.height > size.width}>
      <img class=${size.width <= 256 ? 'pixels' : ''} src=${image} alt="the picture to paint on" draggable=${false} />
      <canvas ref=${canvas} class="pixels" width=${size.width} height=${size.height} tabindex="0" role="application"
        aria-label="Mask: arrows move the brush, space lowers and lifts it, e erases, i inverts, brackets change its size, control z takes back"
        aria-describedby="help-mask" onPointerDown=${press} onPointerMove=${move} onPointerUp=${release} onPointerCancel=${release}
        onPointerLeave=${() => !last.current && setRing(null)} onKeyDown=${keys} onContextMenu=${(event) => event.preventDefault()}></canvas>
      ${ring && html`<span class=${`brush ${isErasing ? 'erases' : ''} ${isDown ? 'down' : ''}`} aria-hidden="true" style=${{
        left: percent(ring.x, size.width), top: percent(ring.y, size.height), width: percent(brush, size.width), height: percent(brush, size.height)}}></span>`}
    </div></div>
    <${Fitted} name="image" />
    <${Problem} name="mask" error=${error} help=${`Paint over what is to be made anew${HAS_MOUSE ? '; the right button erases' : ''}.`} />
    <div class="tools">
      <div class="buttons" role="group" aria-label="Brush">
        <button type="button" aria-pressed=${!isErasing} onClick=${() => setErasing(false)}>Paint</button>
        <button type="button" aria-pressed=${isErasing} onClick=${() => setErasing(true)}>Erase</button>
      </div>
      <label class="brush-size">Size <input type="range" min="1" max=${Math.max(8, Math.round(Math.max(size.width, size.height) / 2))} value=${brush}
        onInput=${(event) => resize(Number(event.target.value))} /><output>${brush}</output></label>
      <div class="buttons">
        <button type="button" onClick=${() => all((isPainted) => !isPainted)}>Invert</button>
        <button type="button" onClick=${undo} disabled=${undoable === 0}>Undo</button>
        <button type="button" onClick=${() => all(() => false)} disabled=${!mask}>Clear</button>
        <button type="button" onClick=${() => { setValue('image', ''); setValue('mask', ''); }}>Other picture</button>
      </div>
    </div>
  </section>`;
}
