/** Changes to JSON files of others, who may write what JSON.parse would lose. */

/** Marks a number that is kept as text: of those code points that mean nothing. */
const MARK = '\u{F8FF}';

/** A string, or a number as Python writes them: 10000.0, 1e-05, Infinity, NaN. */
const token = /"(?:[^"\\]|\\.)*"|-?(?:\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|Infinity|NaN)/g;

/**
 * The text of a JSON object, changed. Numbers stay as they were written, since to Python 10000.0 is another thing than 10000.
 * @param file what to call it in errors
 * @throws Error for what is no JSON object, and what `change` throws
 */
export function editJson(text: string, file: string, change: (json: { readonly [field: string]: unknown }) => object): string {
  const marked = text.replace(/^\u{FEFF}/u, '').replaceAll(token, (found) => (found.startsWith('"') ? found : `"${MARK}${found}"`));
  const changed = JSON.stringify(change(parseObject(marked, file)), null, 2);
  return `${changed.replaceAll(new RegExp(`"${MARK}([^"]*)"`, 'g'), '$1')}\n`;
}

function parseObject(text: string, file: string): { readonly [field: string]: unknown } {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw new Error(`${file} is not JSON`, { cause: error });
  }
  if (typeof json !== 'object' || json === null || Array.isArray(json)) throw new Error(`${file} expected a JSON object`);
  return json as { readonly [field: string]: unknown };
}
