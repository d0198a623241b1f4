/** Text to tokens and back: one interface over two kinds of tokenizer.json. */
import { inOneLine } from '../errors.js';
import { readJsonObject, type ModelFiles } from './files.js';
import { parseScoreMerge, scoreMergeTokenizer } from './score-merge.js';

export interface Tokenizer {
  /** The token that begins a sequence; `encode` puts it first. */
  readonly bos: number;
  /** The token that ends one. */
  readonly eos: number;
  encode(text: string): number[];
  /** Special tokens are left out. */
  decode(ids: readonly number[]): string;
}

/** @throws Error naming the file that is missing or of neither kind, or the package that is not there to read it */
export async function tokenizerOf(files: ModelFiles): Promise<Tokenizer> {
  const [name, configName] = ['tokenizer.json', 'tokenizer_config.json'];
  const json = readJsonObject(files, name);
  if (json.type === 'llama2.c score-merge BPE') return scoreMergeTokenizer(parseScoreMerge(json, files.path(name)));
  if (json.model === undefined) throw new Error(`${files.path(name)} is neither a Hugging Face tokenizer nor a "llama2.c score-merge BPE"`);
  const tokenizerConfig = files.read(configName) === undefined ? {} : readJsonObject(files, configName);
  return huggingFaceTokenizer(json, tokenizerConfig, readJsonObject(files, 'config.json'));
}

/** Most users of the package run no model, so that they install this one themselves. */
async function loadTokenizers(): Promise<typeof import('@huggingface/tokenizers')> {
  return import('@huggingface/tokenizers').catch((error: Error) => {
    throw new Error(`a Hugging Face tokenizer is read by the package @huggingface/tokenizers, to be installed beside this one (${inOneLine(error)})`);
  });
}

async function huggingFaceTokenizer(json: object, tokenizerConfig: object, modelConfig: Record<string, unknown>): Promise<Tokenizer> {
  const { Tokenizer: HuggingFaceTokenizer } = await loadTokenizers();
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
