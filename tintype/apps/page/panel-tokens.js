// How many tokens of the prompt the model reads, beneath it, and the words that it does not.
import {html, useEffect, useState} from './html.js';
import {useStore} from './store.js';
import {ask} from './server.js';

const PAUSE = 250; // milliseconds without a key before the server is asked

/** @param {{name: string, text: string, model: string}} props the field, what is typed into it, whose words count */
export function Tokens({name, text, model}) {
  const style = useStore((state) => state.values.prompt_style) || undefined;
  const typed = useStore((state) => state.values.steps);
  const steps = /^[1-9]\d{0,2}$/.test(typed ?? '') ? Number(typed) : undefined; // else as usual
  const [read, setRead] = useState(null);
  useEffect(() => {
    if (text.trim() === '') {
      setRead(null);
      return undefined;
    }
    const left = new AbortController();
    const timer = setTimeout(async () => {
      try {
        setRead(await ask('/v1/tokens', {
          method: 'POST', body: {prompt: text, model, prompt_style: style, steps}, signal: left.signal,
        }));
      } catch { // what is typed is told wrong when it is drawn; a counter is no place for it
        if (!left.signal.aborted) setRead(null);
      }
    }, PAUSE);
    return () => {
      clearTimeout(timer);
      left.abort();
    };
  }, [text, model, style, steps]);

  const tower = longest(read);
  if (!tower || (read.known && read.by === null)) return null; // a model that reads no prompts
  const {room, chunks, unknown, cut} = tower;
  const full = chunks.at(-1).length;
  const breaks = chunks.slice(0, -1).map((chunk) => chunk.at(-1)?.word).filter(Boolean);
  return html`<div class="tokens help" data-tokens=${name} role="status">
    <p>${full} of ${room} tokens${read.known === false && ' as CLIP counts them'}${chunks.length > 1 && `, in chunk ${chunks.length}; chunks end after ${quoted(breaks)}`}</p>
    ${unknown.length > 0 && html`<p class="unheard">The model never saw ${quoted(unknown)}; left out</p>`}
    ${cut.length > 0 && html`<p class="unheard">Too long: left out from ${quoted(cut.slice(0, 1))} on</p>`}
  </div>`;
}

/** @param {{phases: {towers: object[]}[]}|null} read @returns {object|undefined} what the first tower reads of the longest text */
function longest(read) {
  const size = (tower) => tower.chunks.reduce((sum, chunk) => sum + chunk.length, 0);
  return read?.phases.map((phase) => phase.towers[0]).filter(Boolean).sort((a, b) => size(b) - size(a))[0];
}

const quoted = (words) => words.map((word) => `“${word}”`).join(', ');
