// Asks for the token that the server wants.
import {html, useLayoutEffect, useRef, useState} from './html.js';
import {giveToken, hasToken} from './server.js';

export function TokenDialog() {
  const dialog = useRef(null);
  const [token, setToken] = useState('');
  const [wasWrong] = useState(hasToken());
  useLayoutEffect(() => dialog.current.showModal(), []);
  const give = (event) => {
    event.preventDefault();
    if (token.trim()) giveToken(token.trim());
  };
  return html`<dialog ref=${dialog} class="small" aria-labelledby="token-title" onCancel=${(event) => event.preventDefault()}>
    <form onSubmit=${give}>
      <h2 id="token-title">This server asks for a token</h2>
      <p>${wasWrong ? 'That one was not right. ' : ''}Whoever runs it knows it. It is kept until this tab is closed.</p>
      <label for="token">Token</label>
      <input id="token" type="password" autocomplete="current-password" value=${token} aria-invalid=${wasWrong ? 'true' : undefined}
        onInput=${(event) => setToken(event.target.value)} />
      <div class="actions"><button class="primary" type="submit">Go on</button></div>
    </form>
  </dialog>`;
}
