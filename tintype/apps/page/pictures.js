// Pictures as the page has them: data URLs, with their sizes.

export const KINDS = ['image/png', 'image/jpeg', 'image/webp'];

/** @param {Blob} blob @returns {Promise<string>} a data URL */
export function dataUrl(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(new Error('the file cannot be read'));
    reader.readAsDataURL(blob);
  });
}

/** @param {string} url @returns {Promise<HTMLImageElement>} decoded */
export async function opened(url) {
  const picture = new Image();
  picture.src = url;
  try {
    await picture.decode();
  } catch {
    throw new Error('not a picture that can be read; expected PNG, JPEG or WebP');
  }
  return picture;
}

/** @param {DataTransfer|null} transfer @returns {string} what is wrong with what is dropped, which has no picture */
export const noPicture = (transfer) => `${transfer?.files[0]?.name || 'that'} is no picture; expected a PNG, JPEG or WebP file`;

/** @param {DataTransfer|null} transfer @returns {File|null} the first picture in what is dropped or pasted */
export const fileIn = (transfer) => [...(transfer?.files ?? [])].find((file) => KINDS.includes(file.type)) ?? null;
