/** Models in folders on a disk: what of reading them needs Node. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ModelFiles } from './files.js';
import { tokenizerOf, type Tokenizer } from './tokenizer.js';
import { weightsOf, type LlamaWeights } from './weights.js';

function folder(directory: string): ModelFiles {
  const path = (name: string): string => join(directory, name);
  return { path, read: (name) => (existsSync(path(name)) ? readFileSync(path(name)) : undefined) };
}

/** As {@link weightsOf} of the folder's files. */
export const readWeights = (directory: string): LlamaWeights => weightsOf(folder(directory));

/** As {@link tokenizerOf} of the folder's files. */
export const readTokenizer = (directory: string): Promise<Tokenizer> => tokenizerOf(folder(directory));
