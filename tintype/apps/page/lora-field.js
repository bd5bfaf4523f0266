// Small changes to the model (LoRAs), each with how much of it: chosen by name, kept as NAME:STRENGTH.
import {html, useState} from './html.js';
import {setValue, useStore} from './store.js';
import {Problem} from './field.js';
import {Icon} from './icons.js';

const MOST = 2; // of the slider, both ways; more can be typed

/** @param {string} text @returns {{name: string, strength: number}} as the server reads it: a colon may be the name's */
export function loraOf(text) {
  const [, name, number] = /^(.+):([^:]+)$/s.exec(text) ?? [];
  const strength = Number(number);
  return number?.trim() && Number.isFinite(strength) ? {name, strength} : {name: text, strength: 1};
}

/** Nothing where there is nothing to choose. @param {{name: string}} props */
export function LoraField({name}) {
  const texts = useStore((state) => state.values[name]) ?? [];
  const there = useStore((state) => state.capabilities.loras) ?? [];
  const error = useStore((state) => state.errors[name]);
  if (there.length === 0 && texts.length === 0) return null;
  const chosen = texts.map(loraOf);
  const keep = (next) => setValue(name, next.map((one) => `${one.name}:${one.strength}`));
  const left = there.filter((one) => !chosen.some((other) => plainOf(other.name) === one));
  return html`<fieldset class=${`field wide loras ${error ? 'wrong' : ''}`} aria-describedby=${`help-${name}`}><legend>LoRAs</legend>
    <ul>${chosen.map((one, place) => html`<li key=${`${place} ${one.name}`}>
      <span class="lora-name" title=${one.name}>${plainOf(one.name)}</span>
      <${Strength} of=${plainOf(one.name)} value=${one.strength}
        onChange=${(strength) => keep(chosen.with(place, {...one, strength}))} />
      <button type="button" class="quiet round" aria-label=${`Remove ${plainOf(one.name)}`}
        onClick=${() => keep(chosen.filter((_, other) => other !== place))}><${Icon} name="close" /></button>
    </li>`)}</ul>
    ${left.length > 0 && html`<select id=${`field-${name}`} aria-label="Add a LoRA" value=""
      onChange=${(event) => { keep([...chosen, {name: event.target.value, strength: 1}]); event.target.value = ''; }}>
      <option value="">${chosen.length > 0 ? 'Add another' : 'Add one'}</option>
      ${left.map((one) => html`<option key=${one} value=${one}>${one}</option>`)}
    </select>`}
    <${Problem} name=${name} error=${error} help=${chosen.length > 0 ? '1 is as it was trained, 0 nothing of it, below 0 the opposite' : 'small changes to the model; several add up'} />
  </fieldset>`;
}

/** What a picture tells has the file's digest behind the name. @param {string} name */
const plainOf = (name) => name.replace(/@[0-9a-f]{10}$/, '');

function Strength({of, value, onChange}) {
  const [typed, setTyped] = useState(null); // what is no number yet, such as a minus alone
  const type = (event) => {
    const text = event.target.value.replace(',', '.');
    const isNumber = text.trim() !== '' && Number.isFinite(Number(text));
    setTyped(event.target.value);
    if (isNumber) onChange(Number(text));
  };
  return html`
    <input type="range" min=${-MOST} max=${MOST} step="0.05" value=${value} aria-label=${`Strength of ${of}, slider`}
      onInput=${(event) => { setTyped(null); onChange(Number(event.target.value)); }} />
    <input type="text" inputmode="text" aria-label=${`Strength of ${of}`} autocomplete="off" value=${typed ?? value}
      onInput=${type} onBlur=${() => setTyped(null)} />`;
}
