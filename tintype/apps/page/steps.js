// The kept steps of a job that is done, and what is asked of one of them: the last wish counts, earlier ones end.
import {useEffect, useState} from './html.js';
import {ask, fetched} from './server.js';

const REST = 60; // milliseconds on a step before the server is asked: a slider flies past most of them

/** @param {string} id @returns {number[]} by index; none where they were not kept */
export function useSteps(id) {
  const [found, setFound] = useState({id: '', steps: []});
  useEffect(() => {
    let isCurrent = true;
    const keep = (steps) => isCurrent && setFound({id, steps});
    ask(`v1/jobs/${id}/steps`).then((told) => keep(told.steps), () => keep([]));
    return () => (isCurrent = false);
  }, [id]);
  return found.id === id ? found.steps : [];
}

/**
 * What is made of the answer at a path. While another is waited for, the one before is still there, with its path.
 * @template T
 * @param {string} path '' for nothing
 * @param {(answer: Response) => Promise<T>} read
 * @returns {{path: string, found: T|null, problem: string}}
 */
export function useLatest(path, read) {
  const [told, setTold] = useState({path: '', found: null, problem: ''});
  useEffect(() => {
    if (!path) return undefined;
    const left = new AbortController();
    const timer = setTimeout(async () => {
      try {
        const found = await read(await fetched(path, {signal: left.signal}));
        if (!left.signal.aborted) setTold({path, found, problem: ''});
      } catch (error) {
        if (!left.signal.aborted) setTold({path, found: null, problem: error.message});
      }
    }, REST);
    return () => {
      clearTimeout(timer);
      left.abort();
    };
  }, [path]);
  return told;
}
