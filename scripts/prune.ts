/** Takes out of dist/ what nobody reaches: declarations of what only the command uses, and modules that are nothing but types. */
import { readdirSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { reachedFiles } from './reached.js';

const reached = reachedFiles('.');
for (const name of readdirSync('dist', { recursive: true, encoding: 'utf8' })) {
  const file = join('dist', name);
  if (statSync(file).isFile() && !reached.has(file)) rmSync(file);
}
