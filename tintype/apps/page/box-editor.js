// Boxes drawn on an empty picture, each with a name.
import {html, useLayoutEffect, useRef, useState} from './html.js';
import {setValue, useStore} from './store.js';
import {between, boxOf, isLargeEnough, moved, resized, textOf} from './boxes.js';
import {labelsOf} from './models.js';
import {Problem, Suggested} from './field.js';
import {Icon} from './icons.js';

const CORNERS = [['left', 'top'], ['right', 'top'], ['left', 'bottom'], ['right', 'bottom']];
const WIDE = 1000; // units of the drawing

export function BoxEditor() {
  const texts = useStore((state) => state.values.boxes) ?? [];
  const error = useStore((state) => state.errors.boxes);
  const width = useStore((state) => Number(state.values.width) || 1);
  const height = useStore((state) => Number(state.values.height) || 1);
  const labels = useStore(labelsOf);
  const [chosen, setChosen] = useState(-1);
  const [pulled, setPulled] = useState(null); // what the pointer does: draws, moves or pulls a corner
  const [named, setNamed] = useState(-1); // whose name is to be typed next
  const drawing = useRef(null);
  const names = useRef(null);
  const isSquare = !(width > 1 && height > 1);
  const high = isSquare ? WIDE : Math.round((WIDE * height) / width);
  const boxes = texts.map(boxOf).filter(Boolean);
  const keep = (next) => setValue('boxes', next.map(textOf));
  const change = (place, box) => keep(boxes.map((one, other) => (other === place ? box : one)));

  useLayoutEffect(() => {
    if (named < 0) return;
    names.current?.querySelectorAll('input')[named]?.focus();
    setNamed(-1);
  }, [named]);

  const at = (event) => {
    const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(drawing.current.getScreenCTM().inverse());
    return {x: point.x / WIDE, y: point.y / high};
  };
  const press = (action) => (event) => {
    if (event.button !== 0) return;
    event.preventDefault();
    event.stopPropagation();
    drawing.current.setPointerCapture(event.pointerId);
    const from = at(event);
    if (action.place !== undefined) {
      setChosen(action.place);
      drawing.current.querySelectorAll('.box')[action.place]?.focus({preventScroll: true});
    } else setChosen(-1);
    setPulled({...action, from, box: action.place === undefined ? between('', from, from) : boxes[action.place]});
  };
  const move = (event) => {
    if (!pulled) return;
    const to = at(event);
    const [x, y] = [to.x - pulled.from.x, to.y - pulled.from.y];
    if (pulled.kind === 'draw') setPulled({...pulled, box: between('', pulled.from, to)});
    else if (pulled.kind === 'move') change(pulled.place, moved({...pulled.box}, x, y));
    else change(pulled.place, resized(pulled.box, ...pulled.corner, x, y));
  };
  const release = () => {
    if (pulled?.kind === 'draw' && isLargeEnough(pulled.box)) add(pulled.box);
    setPulled(null);
  };
  const add = (box) => {
    keep([...boxes, box]);
    setChosen(boxes.length);
    setNamed(boxes.length);
  };
  const addInFreePlace = () => {
    const shift = (boxes.length % 5) * 0.1;
    add({name: '', left: 0.1 + shift, top: 0.1 + shift, right: 0.5 + shift, bottom: 0.5 + shift});
  };
  const remove = (place) => {
    keep(boxes.filter((_, other) => other !== place));
    setChosen(-1);
  };
  const keys = (place) => (event) => {
    const by = event.altKey ? 0.1 : 0.02;
    const [x, y] = {ArrowLeft: [-by, 0], ArrowRight: [by, 0], ArrowUp: [0, -by], ArrowDown: [0, by]}[event.key] ?? [0, 0];
    if (event.key === 'Delete' || event.key === 'Backspace') remove(place);
    else if (event.key === 'Enter' && !event.ctrlKey && !event.metaKey) setNamed(place);
    else if (event.key.startsWith('Arrow')) {
      change(place, event.shiftKey ? resized(boxes[place], 'right', 'bottom', x, y) : moved(boxes[place], x, y));
    } else return;
    event.preventDefault();
  };
  const rectangle = (box) => ({
    x: box.left * WIDE, y: box.top * high, width: (box.right - box.left) * WIDE, height: (box.bottom - box.top) * high,
  });

  return html`<section class="pane editor boxes" aria-label="Boxes">
    <div class="frame">
      <svg ref=${drawing} class="canvas paper" viewBox=${`0 0 ${WIDE} ${high}`} onPointerDown=${press({kind: 'draw'})} onPointerMove=${move}
        onPointerUp=${release} onPointerCancel=${() => setPulled(null)}>
        ${[1, 2, 3].flatMap((part) => [
          html`<line class="guide" x1=${(part * WIDE) / 4} x2=${(part * WIDE) / 4} y1="0" y2=${high} />`,
          html`<line class="guide" x1="0" x2=${WIDE} y1=${(part * high) / 4} y2=${(part * high) / 4} />`])}
        ${boxes.length === 0 && pulled === null && html`<text class="hint" x=${WIDE / 2} y=${high / 2}>Drag here to draw a box</text>`}
        ${boxes.map((box, place) => {
          const {x, y, width: w, height: h} = rectangle(box);
          return html`<g key=${place} class=${`box ${place === chosen ? 'chosen' : ''}`} tabindex="0" role="button"
            aria-label=${`Box ${place + 1}, ${box.name || 'without a name'}: arrows move it, with shift they change its size, enter names it, delete removes it`}
            onFocus=${() => setChosen(place)} onKeyDown=${keys(place)} onPointerDown=${press({kind: 'move', place})}>
            <rect x=${x} y=${y} width=${w} height=${h} rx="8" />
            <text x=${x + 20} y=${y + 52}>${`${place + 1} ${box.name}`}</text>
            ${place === chosen && CORNERS.map(([across, down]) => html`<g key=${across + down} class=${`corner ${across} ${down}`}
              onPointerDown=${press({kind: 'resize', place, corner: [across, down]})}>
              <circle class="reach" cx=${box[across] * WIDE} cy=${box[down] * high} r="44" />
              <circle class="grip" cx=${box[across] * WIDE} cy=${box[down] * high} r="15" /></g>`)}
          </g>`;
        })}
        ${pulled?.kind === 'draw' && html`<rect class="fresh" ...${rectangle(pulled.box)} rx="8" />`}
      </svg>
    </div>
    <${Problem} name="boxes" error=${error} help="Drag to draw a box, then say what is in it." />
    <${Suggested} id="options-boxes" options=${labels} />
    <ol class="box-list" ref=${names}>
      ${boxes.map((box, place) => html`<li key=${place} class=${place === chosen ? 'chosen' : ''}>
        <label for=${`box-${place}`}>${place + 1}</label>
        <input id=${`box-${place}`} type="text" value=${box.name} autocomplete="off" spellcheck=${false} list="options-boxes" aria-label=${`What is in box ${place + 1}`}
          placeholder="red apple" aria-invalid=${error ? 'true' : undefined} aria-describedby="help-boxes" onFocus=${() => setChosen(place)}
          onInput=${(event) => change(place, {...box, name: event.target.value})} />
        <button type="button" class="quiet round" aria-label=${`Remove box ${place + 1}`} onClick=${() => remove(place)}><${Icon} name="close" /></button>
      </li>`)}
    </ol>
    <div class="tools"><div class="buttons">
      <button type="button" onClick=${addInFreePlace}>Add a box</button>
      <button type="button" disabled=${boxes.length === 0} onClick=${() => keep([])}>Clear</button>
    </div></div>
  </section>`;
}
