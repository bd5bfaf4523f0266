// The estimates of all steps, to go back and forth in, beneath the finished picture. Its place is kept; nothing is shown until the server can tell.

/** @param {{job: object}} props a job that is done */
export function Travel(props) {
  return null;
}
