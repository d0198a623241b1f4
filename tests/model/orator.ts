/** The small model that comes with the project. */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { LlamaRunner } from '../../src/model/llama.js';
import { readTokenizer, readWeights } from '../../src/model/folder.js';

export const orator = fileURLToPath(new URL('../../demo/models/orator', import.meta.url));

/** The first tokens of its held-out text, without the one that begins a text. */
export async function heldOut(tokens: number): Promise<{ readonly runner: LlamaRunner; readonly bos: number; readonly ids: number[] }> {
  const { encode, bos } = await readTokenizer(orator);
  // A token has 2.7 characters of this text.
  const ids = encode(readFileSync(`${orator}/eval.txt`, 'utf8').slice(0, tokens * 8)).slice(1, 1 + tokens);
  return { runner: new LlamaRunner(readWeights(orator)), bos, ids };
}
