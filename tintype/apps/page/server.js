// Talking to the server: the token, requests, events, pictures.
import {set} from './store.js';

const ROOT = new URL('..', import.meta.url); // of the server, wherever a proxy puts it
const TOKEN = 'tintype.token';

/** The server said no. `fields`: what is wrong with which field, `about`: which field it is about, where it says so. */
export class Refused extends Error {
  constructor(status, message, {fields = {}, about = '', retry = 0, failure = ''} = {}) {
    super(message);
    Object.assign(this, {status, fields, about, retry, failure});
  }
}

/** No answer came. */
export class Unreachable extends Error {}

let waitingForToken = null;

/** @param {string} token from the person; what waited for it goes on */
export function giveToken(token) {
  sessionStorage.setItem(TOKEN, token);
  set({needsToken: false});
  waitingForToken?.resolve();
  waitingForToken = null;
}

function tokenGiven() {
  if (!waitingForToken) {
    waitingForToken = {};
    waitingForToken.promise = new Promise((resolve) => (waitingForToken.resolve = resolve));
    set({needsToken: true});
  }
  return waitingForToken.promise;
}

export const hasToken = () => sessionStorage.getItem(TOKEN) !== null;

/** @param {string} path below the server's root @returns {string} */
export const address = (path) => new URL(path.replace(/^\//, ''), ROOT).href;

/**
 * The answer to a request; a 401 waits for the person's token and asks again, so that nothing is lost by it.
 * @param {string} path
 * @param {{method?: string, body?: object, headers?: Record<string, string>, signal?: AbortSignal}} [options]
 * @returns {Promise<Response>}
 */
export async function fetched(path, {method = 'GET', body, headers = {}, signal} = {}) {
  for (;;) {
    const token = sessionStorage.getItem(TOKEN);
    const sent = {...headers};
    if (token !== null) sent.Authorization = `Bearer ${token}`;
    if (body !== undefined) sent['Content-Type'] = 'application/json';
    let answer;
    try {
      answer = await fetch(address(path), {method, headers: sent, signal, body: body && JSON.stringify(body)});
    } catch (error) {
      if (error.name === 'AbortError') throw error;
      throw new Unreachable('the server does not answer');
    }
    if (answer.status === 401) {
      if (token === sessionStorage.getItem(TOKEN)) await tokenGiven();
      continue;
    }
    if (!answer.ok) throw await refusal(answer);
    return answer;
  }
}

/** As `fetched`; the JSON of the answer. @returns {Promise<any>} */
export async function ask(path, options) {
  const answer = await fetched(path, options);
  return answer.status === 204 ? null : answer.json();
}

/** @returns {Promise<string>} why the server can draw nothing until someone looks after it; '' where it can, or will soon */
export async function failure() {
  try {
    await ask('readyz');
    return '';
  } catch (error) {
    if (error instanceof Refused) return error.failure;
    throw error;
  }
}

async function refusal(answer) {
  const told = await answer.json().catch(() => ({}));
  const fields = {};
  if (Array.isArray(told.detail)) {
    for (const one of told.detail) {
      const name = one.loc.find((part) => part !== 'body' && part !== 'query');
      if (name) fields[name] ??= one.msg.replace(/^Value error, /, '');
    }
  }
  const detail = typeof told.detail === 'string' ? told.detail : undefined;
  const message = told.error?.message ?? detail ?? `the server answered ${answer.status}`;
  return new Refused(answer.status, message, {
    fields, about: told.error?.param ?? '', retry: Number(answer.headers.get('Retry-After') ?? 0), failure: told.failure ?? '',
  });
}

/**
 * Server-sent events, read with fetch since EventSource cannot send the token.
 * @param {string} path
 * @param {AbortSignal} signal
 * @returns {AsyncGenerator<{event: string, data: any}>}
 */
export async function* events(path, signal) {
  const answer = await fetched(path, {signal});
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = '';
  for (;;) {
    const {done, value} = await reader.read();
    if (done) return;
    text += value;
    const whole = text.split('\n\n');
    text = whole.pop();
    for (const block of whole) {
      const lines = Object.fromEntries(block.split('\n').map((line) => line.split(/:\s?(.*)/s, 2)));
      if (lines.event) yield {event: lines.event, data: JSON.parse(lines.data)};
    }
  }
}

const blobs = new Map(); // object URLs of pictures by path, the oldest first
const KEPT = 400;

/**
 * What an <img> can show: the address itself, or with a token an object URL, as an <img> cannot send one.
 * @param {string} path
 * @returns {string|Promise<string>}
 */
export function shownAt(path) {
  if (!hasToken()) return address(path);
  if (blobs.has(path)) return blobs.get(path);
  const made = fetched(path).then((answer) => answer.blob()).then((blob) => {
    const url = URL.createObjectURL(blob);
    blobs.set(path, url);
    for (const [old, oldUrl] of blobs) {
      if (blobs.size <= KEPT) break;
      if (typeof oldUrl === 'string') URL.revokeObjectURL(oldUrl);
      blobs.delete(old);
    }
    return url;
  });
  made.catch(() => blobs.delete(path));
  blobs.set(path, made);
  return made;
}

/** @param {number} milliseconds */
export const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
