/**
 * A process of its own that answers a prompt with the demo's model, and what it says of that: run by processes.test.ts only.
 *
 * It is given a PromptTask, and prints a PromptReport.
 */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createStorage, type Driver } from 'unstorage';
import fsDriver from 'unstorage/drivers/fs';
import redisDriver from 'unstorage/drivers/redis';
import { feed } from '../../src/model/cached-model.js';
import { readTokenizer, readWeights } from '../../src/model/folder.js';
import { largest } from '../../demo/generate.js';
import { LlamaRunner } from '../../src/model/llama.js';
import { promptsOf } from '../../demo/share-prefix.js';
import { KvCache, onWarning, unstoragePages, wasmBackend, type PrefixCounters } from '../../src/index.js';
import { orator } from '../model/orator.js';

export interface PromptTask {
  /** Of the demo's two, which begin alike. */
  readonly prompt: 0 | 1;
  /** Where pages are: a folder, or the socket of a Redis server. */
  readonly folder?: string;
  readonly socket?: string;
  /** Whether its pages go there on request. */
  readonly stores: boolean;
}

export interface PromptReport {
  /** Tokens that went through the model, the prompt's. */
  readonly computed: number;
  /** SHA-256 of the logits of the prompt's last token, and of all that were generated. */
  readonly logits: string;
  readonly counters: PrefixCounters;
  readonly warnings: readonly string[];
}

const { prompt, folder, socket, stores }: PromptTask = JSON.parse(process.argv[2]);
const warnings: string[] = [];
onWarning((message) => void warnings.push(message));

function driver(): Driver | undefined {
  if (folder !== undefined) return fsDriver({ base: folder }) as Driver;
  return socket === undefined ? undefined : (redisDriver({ path: socket }) as Driver);
}

const runner = new LlamaRunner(readWeights(orator));
const tokens = promptsOf(readFileSync(`${orator}/eval.txt`, 'utf8').slice(0, 4000), await readTokenizer(orator), runner)[prompt];
const { layers, queryHeads, kvHeads, headDim, context, vocab } = runner.config;
const storage = createStorage({ driver: driver() });
const cache = new KvCache(wasmBackend(), { layers, queryHeads, kvHeads, headDim, capacity: context, prefix: { model: 'orator', store: unstoragePages(storage) } });

const { sequence, length } = await cache.matchPrefix(tokens);
const hash = createHash('sha256');
let row = (await feed(runner, cache, sequence, tokens.slice(length))).subarray(-vocab);
for (let made = 0; made < 12; made++) {
  hash.update(row);
  row = await feed(runner, cache, sequence, [largest(row)]);
}
if (stores) await cache.storePrefix(sequence);
const report: PromptReport = { computed: tokens.length - length, logits: hash.digest('hex'), counters: cache.prefixCounters, warnings };
await storage.dispose();
console.log(JSON.stringify(report));
