/** Text to tokens and back: one interface over the two kinds of tokenizer.json that the demo's models come with. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Tokenizer as HuggingFaceTokenizer } from '@huggingface/tokenizers';
import { scoreMergeTokenizer, type ScoreMergeJson } from './score-merge.js';

export interface Tokenizer {
  /** The token that begins a sequence; `encode` puts it first. */
  readonly bos: number;
  /** The token that ends one. */
  readonly eos: number;
  encode(text: string): number[];
  /** Special tokens are left out. */
  decode(ids: readonly number[]): string;
}

/** @throws Error naming the file that is missing or of neither kind */
export function readTokenizer(directory: string): Tokenizer {
  const file = join(directory, 'tokenizer.json');
  const json = readJson(file);
  if (json.type === 'llama2.c score-merge BPE') return scoreMergeTokenizer(json as unknown as ScoreMergeJson);
  if (json.model === undefined) throw new Error(`${file} is neither a Hugging Face tokenizer nor a "llama2.c score-merge BPE"`);
  const configFile = join(directory, 'tokenizer_config.json');
  return huggingFaceTokenizer(json, existsSync(configFile) ? readJson(configFile) : {}, readJson(join(directory, 'config.json')));
}

function huggingFaceTokenizer(json: object, tokenizerConfig: object, modelConfig: Record<string, unknown>): Tokenizer {
  const tokenizer = new HuggingFaceTokenizer(json, tokenizerConfig);
  const bos = firstNumber(modelConfig.bos_token_id, 'bos_token_id');
  return {
    bos,
    eos: firstNumber(modelConfig.eos_token_id, 'eos_token_id'),
    encode: (text) => [bos, ...tokenizer.encode(text, { add_special_tokens: false }).ids],
    // The package refuses an empty list.
    decode: (ids) => (ids.length === 0 ? '' : tokenizer.decode([...ids], { skip_special_tokens: true })),
  };
}

/** Newer models list several tokens that end a text. */
function firstNumber(value: unknown, name: string): number {
  const first: unknown = Array.isArray(value) ? value[0] : value;
  if (typeof first !== 'number') throw new Error(`config.json: "${name}" expected a token, got ${JSON.stringify(value)}`);
  return first;
}

const readJson = (file: string): Record<string, unknown> => JSON.parse(readFileSync(file, 'utf8')) as Record<string, unknown>;
