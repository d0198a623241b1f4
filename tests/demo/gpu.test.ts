import { equal, ok } from 'uvu/assert';
import { CachedModel } from '../../src/model/cached-model.js';
import { readTokenizer, readWeights } from '../../src/model/folder.js';
import { generate } from '../../demo/generate.js';
import { LlamaRunner } from '../../src/model/llama.js';
import { requestWebgpuBackend, wasmBackend, type Backend } from '../../src/index.js';
import { adapterName, gpu, noAdapter } from '../gpu/adapter.js';
import { orator } from '../model/orator.js';
import { suite } from '../suite.js';

const test = suite(`demo on ${adapterName}`, { skip: noAdapter });

test('the model says the same through an f32 cache on the GPU', async () => {
  const runner = new LlamaRunner(readWeights(orator));
  const tokenizer = await readTokenizer(orator);
  // More tokens than a decode step takes: the prompt is a prefill.
  const prompt = tokenizer.encode('The whale, in the judgment of the Congress, is a matter of the Senate, and of the sea');
  ok(prompt.length > 16);
  const say = async (backend: Backend): Promise<readonly number[]> => {
    const model = new CachedModel(backend, runner, { dtype: 'f32' });
    const { tokens } = await generate(model, prompt, 30, tokenizer.eos);
    model.dispose();
    backend.dispose();
    return tokens;
  };
  equal(await say(await requestWebgpuBackend({ gpu })), await say(wasmBackend()));
});
