// Which words made which part, over the large picture. Its place is kept; nothing is shown until the server can tell.

/** @param {{job: object, place: number, width: number, height: number}} props the job, and the picture's place in it */
export function Why(props) {
  return null;
}
