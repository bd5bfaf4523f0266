// A picture of the server: small ones are enlarged with their pixels kept sharp.
import {html, useEffect, useState} from './html.js';
import {shownAt} from './server.js';

const SMALL = 256; // pixels of a side; below, each is worth seeing

/** @param {string} path @returns {string} what to show it by; '' until it is there */
export function useShown(path) {
  const there = shownAt(path);
  const [fetched, setFetched] = useState({path: '', url: ''});
  useEffect(() => {
    if (typeof there === 'string') return undefined;
    let isCurrent = true;
    there.then((url) => isCurrent && setFetched({path, url}), () => {}); // a picture that is gone stays blank
    return () => (isCurrent = false);
  }, [path]);
  if (typeof there === 'string') return there;
  return fetched.path === path ? fetched.url : '';
}

/**
 * @param {{path: string, alt: string, width?: number, height?: number, lazy?: boolean}} props
 */
export function Picture({path, alt, width, height, lazy = false}) {
  const url = useShown(path);
  const isSmall = Math.max(width ?? 0, height ?? 0) <= SMALL;
  return html`<img class=${isSmall ? 'pixels' : ''} src=${url || undefined} alt=${alt} width=${width} height=${height}
    loading=${lazy ? 'lazy' : 'eager'} decoding="async" draggable=${false} />`;
}
