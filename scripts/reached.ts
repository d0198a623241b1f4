/** Which files of a package somebody can reach: from its entry points and commands, by what each file imports. */
import { readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import ts from 'typescript';

interface Manifest {
  readonly exports: { readonly [entry: string]: string | { readonly [condition: string]: string } };
  readonly bin: { readonly [command: string]: string };
}

/** What a declaration names by `./x.js` stands in `./x.d.ts`. */
const declarationOf = (path: string): string => path.replace(/\.js$/, '.d.ts');

/** What package.json names, and what is imported from there, and so on: paths from `root`. */
export function reachedFiles(root: string): Set<string> {
  const { exports, bin } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as Manifest;
  const entries = [...Object.values(exports).flatMap((entry) => (typeof entry === 'string' ? entry : Object.values(entry))), ...Object.values(bin)];
  const reached = new Set<string>();
  const reach = (file: string): void => {
    if (reached.has(file)) return;
    reached.add(file);
    if (!/\.[jt]s$/.test(file)) return;
    for (const { fileName } of ts.preProcessFile(readFileSync(join(root, file), 'utf8')).importedFiles) {
      if (!fileName.startsWith('.')) continue;
      const imported = normalize(join(dirname(file), fileName));
      reach(file.endsWith('.d.ts') ? declarationOf(imported) : imported);
    }
  };
  for (const entry of entries) reach(normalize(entry));
  return reached;
}
