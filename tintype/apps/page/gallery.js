// All pictures: only the rows that can be seen exist, so ten thousand scroll like ten.
import {html, useEffect, useLayoutEffect, useRef, useState} from './html.js';
import {set, useStore} from './store.js';
import {loadMore, refresh} from './gallery-index.js';
import {Picture} from './picture.js';

const GAP = 8;
const BEYOND = 2; // rows kept above and below what is seen
const REST = 120; // milliseconds in sight before a picture is asked for

/** A picture that stays: what flies past in fast scrolling is never asked for, so that what is stopped at comes at once. */
function Rested({one}) {
  const [isRested, setRested] = useState(false);
  useEffect(() => {
    const timer = setTimeout(() => setRested(true), REST);
    return () => clearTimeout(timer);
  }, []);
  const alt = one.prompt || 'a picture without a prompt';
  return isRested
    ? html`<${Picture} path=${one.url} alt=${alt} width=${one.width} height=${one.height} lazy />`
    : html`<span class="heard">${alt}</span>`;
}

export function Gallery() {
  const pictures = useStore((state) => state.pictures);
  const complete = useStore((state) => state.complete);
  const window = useRef(null);
  const [seen, setSeen] = useState({width: 0, height: 0, top: 0});
  const [active, setActive] = useState(0); // the one that Tab reaches
  const moves = useRef(false);

  useEffect(() => {
    refresh().catch(() => {}); // the page says so where the server does not answer
  }, []);
  useLayoutEffect(() => {
    const look = () => {
      const {clientWidth, clientHeight, scrollTop} = window.current;
      setSeen({width: clientWidth, height: clientHeight, top: scrollTop});
    };
    const sizes = new ResizeObserver(look);
    sizes.observe(window.current);
    look();
    return () => sizes.disconnect();
  }, []);

  const rem = parseFloat(getComputedStyle(document.documentElement).fontSize);
  const columns = Math.max(2, Math.floor((seen.width + GAP) / (9 * rem + GAP)));
  const cell = Math.max(1, (seen.width - GAP * (columns - 1)) / columns);
  const high = cell + GAP;
  const rows = Math.ceil(pictures.length / columns);
  const first = Math.max(0, Math.floor(seen.top / high) - BEYOND);
  const last = Math.min(rows, Math.ceil((seen.top + seen.height) / high) + BEYOND);

  useEffect(() => {
    if (!complete && seen.width > 0 && last >= rows - 3 * Math.ceil(seen.height / high)) loadMore().catch(() => {}); // at the next scroll
  }, [last, rows, complete]);

  const go = (place) => {
    const to = Math.min(pictures.length - 1, Math.max(0, place));
    const top = Math.floor(to / columns) * high;
    const box = window.current;
    if (top < box.scrollTop) box.scrollTop = top;
    else if (top + high > box.scrollTop + box.clientHeight) box.scrollTop = top + high - box.clientHeight;
    moves.current = true;
    setActive(to);
  };
  useLayoutEffect(() => {
    if (!moves.current) return;
    const found = window.current.querySelector(`[data-place="${active}"]`);
    if (!found) return; // its row comes with the scroll event
    moves.current = false;
    found.focus({preventScroll: true});
  });
  const keys = (event) => {
    const page = columns * Math.max(1, Math.floor(seen.height / high));
    const by = {ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns, PageUp: -page, PageDown: page}[event.key];
    if (event.key === 'Home') go(0);
    else if (event.key === 'End') go(pictures.length - 1);
    else if (by !== undefined) go(active + by);
    else return;
    event.preventDefault();
  };

  const shown = [];
  for (let row = first; row < last; row++) {
    shown.push(html`<div key=${row} class="gallery-row" role="presentation" style=${{
      transform: `translateY(${row * high}px)`, height: `${cell}px`, gridTemplateColumns: `repeat(${columns}, minmax(0, 1fr))`}}>
      ${pictures.slice(row * columns, (row + 1) * columns).map((one, column) => {
        const place = row * columns + column;
        return html`<div key=${one.number} role="listitem" aria-posinset=${place + 1} aria-setsize=${complete ? pictures.length : -1}>
          <button type="button" class="thumb" data-place=${place} tabindex=${place === active ? 0 : -1} title=${one.prompt}
            onFocus=${() => setActive(place)} onClick=${() => set({opened: one.number})}>
            <${Rested} one=${one} />
          </button></div>`;
      })}
    </div>`);
  }
  return html`<section class="gallery" aria-labelledby="gallery-title">
    <h2 id="gallery-title">Pictures <small>${pictures.length}${complete ? '' : '+'}</small></h2>
    <div class="gallery-window" ref=${window} onKeyDown=${keys} onScroll=${(event) => setSeen({...seen, top: event.currentTarget.scrollTop})}>
      ${pictures.length === 0 && html`<p class="hint">${complete ? 'No pictures yet. What you draw is kept here.' : 'Loading…'}</p>`}
      <div class="gallery-all" role="list" style=${{height: `${Math.max(0, rows * high - GAP)}px`}}>${shown}</div>
    </div>
  </section>`;
}
