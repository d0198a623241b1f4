/** A project with Transformers.js and models, as files. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { decoder, type DecoderShape } from '../decoder.js';
import { installed } from '../install.js';

/** What a text may be made of, one token each; the first ends an answer. */
const characters = ['<end>', ...Array.from({ length: 95 }, (_, i) => String.fromCharCode(32 + i)), '\n'];
export const vocabulary = characters.length;

/** As tokenizers of bytes call them. */
const byteName = (character: string): string => (character === ' ' ? 'Ġ' : character === '\n' ? 'Ċ' : character);

const tokenizer = {
  version: '1.0',
  added_tokens: [{ id: 0, content: '<end>', special: true, single_word: false, lstrip: false, rstrip: false, normalized: false }],
  normalizer: null,
  pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false, trim_offsets: false, use_regex: false },
  post_processor: null,
  decoder: { type: 'ByteLevel', add_prefix_space: false, trim_offsets: false, use_regex: false },
  model: { type: 'BPE', vocab: Object.fromEntries(characters.map((character, id) => [byteName(character), id])), merges: [] },
};

const template = "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}";

/** Where models lie, each under its name. */
export const models = join(installed('transformers'), 'models');

/** A model as Transformers.js loads it. */
export function makeModel(name: string, shape: Omit<DecoderShape, 'vocabulary'>): void {
  const folder = join(models, name);
  mkdirSync(join(folder, 'onnx'), { recursive: true });
  const json = (file: string, content: object): void => writeFileSync(join(folder, file), JSON.stringify(content));
  const { layers, kvHeads, headDim } = shape;
  json('config.json', {
    model_type: 'llama', architectures: ['LlamaForCausalLM'], num_hidden_layers: layers, num_attention_heads: kvHeads, num_key_value_heads: kvHeads,
    head_dim: headDim, hidden_size: kvHeads * headDim, vocab_size: vocabulary, eos_token_id: 0,
  });
  json('tokenizer.json', tokenizer);
  json('tokenizer_config.json', { tokenizer_class: 'PreTrainedTokenizerFast', eos_token: '<end>', chat_template: template });
  writeFileSync(join(folder, 'onnx', 'model.onnx'), decoder({ ...shape, vocabulary }));
}

/** The package itself, the build for Node. */
export const transformers = async (): Promise<any> => {
  const module = await import(pathToFileURL(join(installed('transformers'), 'node_modules/@huggingface/transformers/dist/transformers.node.mjs')).href);
  module.env.allowRemoteModels = false;
  module.env.localModelPath = models;
  return module;
};
