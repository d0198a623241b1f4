/** The golden data's files in a page: all fetched before a test begins, so that reading them needs no waiting, as in Node. */

async function fetched(path: string): Promise<Uint8Array> {
  const response = await fetch(`/golden/${path}`);
  if (!response.ok) throw new Error(`${response.url}: ${response.status}`);
  return new Uint8Array(await response.arrayBuffer());
}

const paths: string[] = JSON.parse(new TextDecoder().decode(await fetched('')));
const files = new Map(await Promise.all(paths.map(async (path) => [path, await fetched(path)] as const)));

/** One file's bytes, in a buffer of their own. */
export function golden(path: string): Uint8Array<ArrayBuffer> {
  const bytes = files.get(path);
  if (bytes === undefined) throw new Error(`no golden file ${path}`);
  return Uint8Array.from(bytes);
}

/** Paths of the files in one folder, for {@link golden}. */
export function goldenFiles(folder: string): string[] {
  return paths.filter((path) => path.slice(0, path.lastIndexOf('/')) === folder);
}
