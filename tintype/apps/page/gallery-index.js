// The gallery's index, a page at a time, by number.
import {now, set} from './store.js';
import {ask} from './server.js';

const PAGE = 500;

/** What is new since the last time, in front. */
export async function refresh() {
  const found = await ask('v1/pictures?count=100');
  const {pictures} = now();
  const newest = pictures[0]?.number ?? -1;
  const isJoined = found.length < 100 || found.at(-1).number <= newest;
  if (pictures.length === 0 || !isJoined) {
    set({pictures: found, complete: found.length < 100});
    return;
  }
  const fresh = found.filter((one) => one.number > newest);
  if (fresh.length > 0) set({pictures: [...fresh, ...pictures]});
}

let loading = null;

/** The next older ones. */
export function loadMore() {
  const {pictures, complete} = now();
  if (complete || pictures.length === 0) return Promise.resolve();
  loading ??= ask(`v1/pictures?count=${PAGE}&before=${pictures.at(-1).number}`)
    .then((older) => {
      const last = now().pictures.at(-1)?.number ?? 0;
      set({
        pictures: [...now().pictures, ...older.filter((one) => one.number < last)],
        complete: older.length < PAGE,
      });
    })
    .finally(() => (loading = null));
  return loading;
}

/** @param {string} job whose pictures are no more */
export function forget(job) {
  const {pictures, opened} = now();
  const isGone = pictures.find((one) => one.number === opened)?.job === job;
  set({pictures: pictures.filter((one) => one.job !== job), opened: isGone ? null : opened});
}
