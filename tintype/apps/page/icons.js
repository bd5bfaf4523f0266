// Drawn signs, one path each, in the colour of the text around them.
import {html} from './html.js';

const PATHS = {
  txt2img: 'M5 6h14M12 6v13M9 19h6', img2img: 'M4 5h16v14H4zM4 16l5-5 4 4 3-3 4 4',
  inpaint: 'M4 20c4 0 5-2 5-4l8-10 3 3-9 8c-2 0-3 1-3 3', outpaint: 'M8 8h8v8H8zM12 5V2M12 22v-3M5 12H2M22 12h-3',
  layout2img: 'M4 4h9v7H4zM11 14h9v6h-9z', class2img: 'M4 4h8l8 8-8 8-8-8zM8 8h.01',
  upscale: 'M4 20V9M4 20h11M4 20L20 4M20 4h-7M20 4v7', edit: 'M4 20h4L19 9l-4-4L4 16zM13 7l4 4',
  depth2img: 'M3 8l9-4 9 4-9 4zM3 12l9 4 9-4M3 16l9 4 9-4', map2img: 'M4 4h7v7H4zM13 4h7v16h-7zM4 13h7v7H4z',
  sample: 'M12 3v4M12 17v4M3 12h4M17 12h4M6 6l2 2M16 16l2 2M18 6l-2 2M8 16l-2 2',
  sun: 'M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8zM12 2v2M12 20v2M2 12h2M20 12h2M5 5l1 1M18 18l1 1M19 5l-1 1M6 18l-1 1',
  moon: 'M20 14A8 8 0 1 1 10 4a7 7 0 0 0 10 10z', close: 'M6 6l12 12M18 6L6 18', left: 'M15 5l-7 7 7 7',
  right: 'M9 5l7 7-7 7', dice: 'M4 4h16v16H4zM9 9h.01M15 15h.01M15 9h.01M9 15h.01', link: 'M10 14a4 4 0 0 0 6 0l3-3a4 4 0 0 0-6-6l-1 1M14 10a4 4 0 0 0-6 0l-3 3a4 4 0 0 0 6 6l1-1',
  again: 'M20 12a8 8 0 1 1-3-6M20 3v5h-5', undo: 'M8 5L4 9l4 4M4 9h10a5 5 0 0 1 0 10h-3', other: 'M5 12h.01M12 12h.01M19 12h.01',
};

/** @param {{name: string}} props */
export const Icon = ({name}) => html`
  <svg class="icon" viewBox="0 0 24 24" aria-hidden="true" fill="none" stroke="currentColor" stroke-width="1.8"
    stroke-linecap="round" stroke-linejoin="round"><path d=${PATHS[name] ?? PATHS.other} /></svg>`;
