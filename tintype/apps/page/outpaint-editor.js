// A picture and the room around it: each side is pulled, or typed in the form.
import {html, useRef, useState} from './html.js';
import {setValue, useStore} from './store.js';
import {Fitted, PictureField, useSize} from './picture-field.js';
import {Problem} from './field.js';
import {wordFor} from './fields.js';

const CELL = 8; // pixels that all sides are multiples of, with every model
const SIDES = ['left', 'top', 'right', 'bottom'];

export function OutpaintEditor() {
  const image = useStore((state) => state.values.image);
  const size = useSize(image);
  if (!image || !size) return html`<section class="pane editor" aria-label="Sides"><${PictureField} key="image" name="image" isLarge /></section>`;
  return html`<${Sides} key=${image} image=${image} size=${size} />`;
}

function Sides({image, size}) {
  const values = useStore((state) => state.values);
  const fields = useStore((state) => state.capabilities.tasks.outpaint.fields);
  const error = useStore((state) => SIDES.map((side) => state.errors[side]).find(Boolean) ?? state.errors.image);
  const drawing = useRef(null);
  const [pulled, setPulled] = useState(null); // the view as it was when pulling began: nothing may run away from the pointer
  const pixels = (side) => Math.max(0, Math.round(Number(values[side]) || 0));
  const [left, top, right, bottom] = SIDES.map(pixels);
  const whole = {width: size.width + left + right, height: size.height + top + bottom};
  const side = 1.4 * Math.max(whole.width, whole.height);
  const view = pulled?.view ?? {
    x: (whole.width - side) / 2 - left, y: (whole.height - side) / 2 - top, side,
  };
  const change = (name, to) => {
    const most = fields[name].most;
    const snapped = Math.min(most, Math.max(0, Math.round(to / CELL) * CELL));
    setValue(name, snapped === 0 ? '' : String(snapped));
  };
  const unit = view.side / 100; // a hundredth of what is seen
  const handles = {
    left: {x: -left, y: (bottom - top + size.height) / 2, sign: -1, axis: 'x'},
    right: {x: size.width + right, y: (bottom - top + size.height) / 2, sign: 1, axis: 'x'},
    top: {x: (right - left + size.width) / 2, y: -top, sign: -1, axis: 'y'},
    bottom: {x: (right - left + size.width) / 2, y: size.height + bottom, sign: 1, axis: 'y'},
  };
  const at = (event) => {
    const matrix = drawing.current.getScreenCTM().inverse();
    return new DOMPoint(event.clientX, event.clientY).matrixTransform(matrix);
  };
  const press = (name) => (event) => {
    event.preventDefault();
    event.currentTarget.focus({preventScroll: true});
    event.currentTarget.setPointerCapture(event.pointerId);
    setPulled({name, view, from: at(event)[handles[name].axis], before: pixels(name)});
  };
  const move = (event) => {
    if (!pulled) return;
    const {axis, sign} = handles[pulled.name];
    change(pulled.name, pulled.before + sign * (at(event)[axis] - pulled.from));
  };
  const keys = (name) => (event) => {
    const by = {ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1, PageUp: 4, PageDown: -4}[event.key];
    if (event.key === 'Home') change(name, 0);
    else if (by !== undefined) change(name, pixels(name) + by * CELL);
    else return;
    event.preventDefault();
  };
  return html`<section class="pane editor outpaint" aria-label="Sides">
    <div class="frame">
      <svg ref=${drawing} class="canvas" viewBox=${`${view.x} ${view.y} ${view.side} ${view.side}`} onPointerMove=${move}
        onPointerUp=${() => setPulled(null)} onPointerCancel=${() => setPulled(null)}>
        <image class=${size.width <= 256 ? 'pixels' : ''} href=${image} x="0" y="0" width=${size.width} height=${size.height} preserveAspectRatio="none" />
        <rect class="beyond" x=${-left} y=${-top} width=${whole.width} height=${whole.height} />
        ${SIDES.map((name) => {
          const {x, y, axis} = handles[name];
          const [long, short] = [7 * unit, 1.8 * unit];
          return html`<g key=${name} class=${`handle ${axis}`} tabindex="0" role="slider" aria-label=${`Pixels to add: ${wordFor(name)}`}
            aria-valuemin="0" aria-valuemax=${fields[name].most} aria-valuenow=${pixels(name)} aria-orientation=${axis === 'x' ? 'horizontal' : 'vertical'}
            data-side=${name} onPointerDown=${press(name)} onKeyDown=${keys(name)}>
            <rect class="reach" x=${x - 6 * unit} y=${y - 6 * unit} width=${12 * unit} height=${12 * unit} />
            <rect class="grip" x=${x - (axis === 'x' ? short : long) / 2} y=${y - (axis === 'x' ? long : short) / 2}
              width=${axis === 'x' ? short : long} height=${axis === 'x' ? long : short} rx=${short / 2} />
          </g>`;
        })}
      </svg>
    </div>
    <${Fitted} name="image" />
    <${Problem} name="sides" error=${error} help=${`${size.width} × ${size.height} becomes ${whole.width} × ${whole.height}. Pull the sides, or use the arrow keys on them.`} />
    <div class="tools"><div class="buttons">
      <button type="button" onClick=${() => SIDES.forEach((name) => change(name, pixels(name) + 32))}>32 all around</button>
      <button type="button" onClick=${() => SIDES.forEach((name) => setValue(name, ''))}>None</button>
      <button type="button" onClick=${() => setValue('image', '')}>Other picture</button>
    </div></div>
  </section>`;
}
