// Preact and htm, once, under the names that all components use.
import {h, render, Fragment} from './vendor/preact.mjs';
import htm from './vendor/htm.module.js';

export {useState, useEffect, useLayoutEffect, useMemo, useRef, useCallback, useId} from './vendor/hooks.mjs';
export {render, Fragment};
export const html = htm.bind(h);
