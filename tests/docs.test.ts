/** What is written for readers: links that lead somewhere, and a reference of the API in which nothing is missing. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { equal, ok } from 'uvu/assert';
import { ReflectionKind } from 'typedoc';
import { entryPoints, reference } from '../scripts/docs.js';
import { suite } from './suite.js';

const root = fileURLToPath(new URL('..', import.meta.url));
const markdownIn = (folder: string): string[] => readdirSync(join(root, folder)).filter((file) => file.endsWith('.md')).map((file) => join(folder, file));
const documents = [...markdownIn('.'), ...markdownIn('docs'), ...markdownIn('bench')];

/** The text of a document without its code, in which brackets are no links. */
function proseOf(document: string): string {
  return readFileSync(join(root, document), 'utf8').replaceAll(/^ *```.*?^ *```$/gms, '').replaceAll(/`[^`\n]*`/g, (code) => (code.includes('](') ? '' : code));
}

/** The anchors of a document, as GitHub makes them of its headings. */
function anchorsOf(document: string): string[] {
  const headings = [...proseOf(document).matchAll(/^#+ (.*)$/gm)].map(([, heading]) => heading);
  const seen = new Map<string, number>();
  return headings.map((heading) => {
    const text = heading.replaceAll(/\[([^\]]*)\]\([^)]*\)/g, '$1').toLowerCase();
    const anchor = text.replaceAll(/[^\p{L}\p{N}\p{M}_ -]/gu, '').replaceAll(' ', '-');
    const count = seen.get(anchor) ?? 0;
    seen.set(anchor, count + 1);
    return count === 0 ? anchor : `${anchor}-${count}`;
  });
}

const links = suite('links');

for (const document of documents) {
  links(`of ${document}`, () => {
    const broken: string[] = [];
    for (const [, target] of proseOf(document).matchAll(/\]\(([^)\s]+)\)/g)) {
      if (/^[a-z]+:/.test(target)) continue;
      const [path, anchor] = target.split('#');
      const file = path === '' ? document : relative(root, join(root, dirname(document), path));
      if (!existsSync(join(root, file)) || (anchor !== undefined && !anchorsOf(file).includes(anchor))) broken.push(target);
    }
    equal(broken, []);
  });
}

const api = suite('the reference of the API');

api('has a comment for every symbol and field that programs can name, and no link that leads nowhere', async () => {
  const { project, complaints } = await reference();
  equal(complaints, []);
  // It looked at all that can be imported.
  equal(project!.children!.length, entryPoints().length);
  const functions = project!.getReflectionsByKind(ReflectionKind.Function).map(({ name }) => name);
  for (const name of ['encode', 'openBackend', 'checkCodes']) ok(functions.includes(name), `${name} is not in it`);
}, { seconds: 300 });
