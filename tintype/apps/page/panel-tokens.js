// How many tokens of the prompt the model reads, beneath it. Its place is kept; nothing is shown until the server can tell.

/** @param {{name: string, text: string, model: string}} props the field, what is typed into it, the model ('' for the task's own) */
export function Tokens(props) {
  return null;
}
