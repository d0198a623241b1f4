import * as assert from 'uvu/assert';
import { readScaleName } from '../../src/checkpoint/names.js';
import { suite } from '../suite.js';
import { checkpoint, f32, model, numbers, readTold } from './fixtures.js';

const test = suite('checkpoint/names');

/** K's and V's names of layer N. */
const pairs: readonly (readonly [string, string])[] = [
  ['model.layers.N.self_attn.k_scale', 'model.layers.N.self_attn.v_scale'],
  ['model.language_model.layers.N.self_attn.k_scale', 'model.language_model.layers.N.self_attn.v_scale'],
  ['language_model.model.layers.N.self_attn.k_scale', 'language_model.model.layers.N.self_attn.v_scale'],
  ['model.layers.N.self_attn.attn.k_scale', 'model.layers.N.self_attn.attn.v_scale'],
  ['backbone.layers.N.mixer.attn.k_scale', 'backbone.layers.N.mixer.attn.v_scale'],
  ['model.layers.N.self_attn.k_proj.k_scale', 'model.layers.N.self_attn.v_proj.v_scale'],
  ['backbone.layers.N.mixer.k_proj.k_scale', 'backbone.layers.N.mixer.v_proj.v_scale'],
  ['model.layers.N.self_attn.k_proj.output_scale', 'model.layers.N.self_attn.v_proj.output_scale'],
  ['model.layers.N.self_attn.qkv_proj.k_scale', 'model.layers.N.self_attn.qkv_proj.v_scale'],
  ['model.layers.N.self_attn.qkqkv_proj.k_scale', 'model.layers.N.self_attn.qkqkv_proj.v_scale'],
  ['layers.N.attention.k_fake_quantizer.qscale_act', 'layers.N.attention.v_fake_quantizer.qscale_act'],
  ['model.layers.N.self_attn.k_cache.scale', 'model.layers.N.self_attn.v_cache.scale'],
  ['language_model.backbone.layers.N.mixer.k_proj.k_scale', 'language_model.backbone.layers.N.mixer.v_proj.v_scale'],
  ['model.text_model.layers.N.self_attn.k_scale', 'model.text_model.layers.N.self_attn.v_scale'],
  ['llm.model.layers.N.self_attn.k_scale', 'llm.model.layers.N.self_attn.v_scale'],
  ['thinker.model.layers.N.self_attn.k_scale', 'thinker.model.layers.N.self_attn.v_scale'],
];

const single = [
  'model.layers.N.self_attn.kv_scale',
  'model.layers.N.self_attn.attn.kv_scale',
  'layers.N.attention.kv_fake_quantizer.qscale_act',
  'transformer.layers.N.attention.kv_cache_scaling_factor',
  'transformer.h.N.attn.kv_cache_scaling_factor',
  'layers.N.kv_cache_scaling_factor',
];

for (const [k, v] of pairs) {
  test(`reads ${k}`, async () => {
    const tensors = Object.fromEntries([0, 1].flatMap((n) => [[k.replace('N', `${n}`), f32([1], 0.25 + n / 8)], [v.replace('N', `${n}`), f32([], 0.125 + n / 8)]]));
    const { scales, warnings } = await readTold(checkpoint(tensors));
    assert.equal(numbers(scales), [[[0.25], [0.125]], [[0.375], [0.25]]]);
    assert.is(scales.granularity, 'tensor');
    assert.is(scales.dtype, 'e4m3fn');
    const beforeRope = k.endsWith('output_scale');
    assert.is(scales.beforeRope, beforeRope);
    assert.is(warnings.length, beforeRope ? 1 : 0, warnings.join('\n'));
    assert.equal(scales.report.found.map(({ side, layer }) => `${layer}${side}`).sort(), ['0k', '0v', '1k', '1v']);
  });
}

for (const name of single) {
  test(`reads ${name} as both`, async () => {
    const { scales, warnings } = await readTold(checkpoint({ [name.replace('N', '0')]: f32([1], 0.25), [name.replace('N', '1')]: f32([1], 0.5) }));
    assert.equal(numbers(scales), [[[0.25], [0.25]], [[0.5], [0.5]]]);
    const beforeRope = name.endsWith('self_attn.kv_scale');
    assert.is(scales.beforeRope, beforeRope);
    assert.is(warnings.length, Number(beforeRope), warnings.join('\n'));
  });
}

const modules = ['self_attn', 'mixer'];

/** What follows a layer's number: each form in each place where somebody writes it, and the sides that it is written for. */
const endings: readonly (readonly [readonly string[], (side: string) => string, string])[] = [
  [modules, (side) => `${side}_scale`, 'kvq'],
  [modules, (side) => `attn.${side}_scale`, 'kvq'],
  [modules, (side) => `${side}_proj.${side}_scale`, 'kvq'],
  [modules, (side) => `${side}_proj.output_scale`, 'kvq'],
  [modules, (side) => `qkv_proj.${side}_scale`, 'kvq'],
  [modules, (side) => `qkqkv_proj.${side}_scale`, 'kvq'],
  [['attention'], (side) => `${side}_fake_quantizer.qscale_act`, 'kvq'],
  [['self_attn'], (side) => `${side}_cache.scale`, 'kvq'],
  [['self_attn'], (side) => `${side}.scale`, 'q'],
];

test('each form is read in every place and for every side, and nowhere else', () => {
  for (const [places, end, sides] of endings) {
    for (const place of ['self_attn', 'mixer', 'attention', 'mlp']) {
      for (const side of 'kvq') {
        const name = `model.layers.7.${place}.${end(side)}`;
        const read = readScaleName(name);
        const expected = places.includes(place) && sides.includes(side) ? [7, side, false, name.endsWith('output_scale')] : undefined;
        assert.equal(read && [read.layer, read.side, read.reciprocal, read.beforeRope], expected, name);
      }
    }
  }
  for (const place of ['', 'self_attn.', 'attention.', 'attn.', 'mlp.']) {
    for (const reciprocal of [false, true]) {
      const name = `transformer.layers.7.${place}kv_cache_${reciprocal ? 'rcp_' : ''}scaling_factor`;
      const read = readScaleName(name);
      assert.equal(read && [read.layer, read.side, read.reciprocal, read.beforeRope], place === 'mlp.' ? undefined : [7, 'kv', reciprocal, false], name);
    }
  }
});

test('scales of keys from before RoPE are said to be so, also of one layer alone', async () => {
  const tensors = { 'model.layers.0.self_attn.attn.kv_scale': f32([1], 0.25), 'model.layers.1.self_attn.k_proj.output_scale': f32([1], 0.25), 'model.layers.1.self_attn.v_scale': f32([1], 0.25) };
  const { scales, warnings } = await readTold(checkpoint(tensors));
  assert.is(scales.beforeRope, true);
  assert.match(warnings.join('\n'), /before rotary position embedding/);
});

test('a reciprocal twin is inverted, and passes by the scale itself', async () => {
  const path = 'transformer.layers.0.attention.kv_cache_';
  const config = { ...model, num_hidden_layers: 1 };
  const alone = await readTold(checkpoint({ [`${path}rcp_scaling_factor`]: f32([1], 8) }, config));
  assert.equal(numbers(alone.scales), [[[0.125], [0.125]]]);
  // The reciprocal of its reciprocal is another number.
  const scale = Math.fround(0.03);
  assert.is.not(Math.fround(1 / Math.fround(1 / scale)), scale);
  const both = await readTold(checkpoint({ [`${path}rcp_scaling_factor`]: f32([1], 1 / scale), [`${path}scaling_factor`]: f32([1], scale) }, config));
  assert.equal(numbers(both.scales), [[[scale], [scale]]]);
});

const strangers = [
  ['model.layers.0.self_attn.k_proj.v_scale', /no known form/],
  ['model.layers.0.attention.k_cache_scale', /no known form/],
  ['model.layers.0.self_attn.k.scale', /no known form/],
  ['model.layers.0.self_attn.fa_k.scale', /no known form/],
  ['talker.model.layers.0.self_attn.v_cache.scale', /language model/],
  ['model.layers.0.self_attn.prob_output_scale', /probabilities/],
  ['model.layers.0.self_attn.k_zero_point', /zero point/],
  ['model.layers.0.self_attn.k_bmm_quantizer._amax', /no known form/],
  ['mtp.layers.0.self_attn.k_scale', /language model/],
  ['vision_encoder.transformer.layers.0.attention.k_fake_quantizer.qscale_act', /language model/],
  ['model.layers.2.self_attn.k_scale', /the model has 2 layers/],
  ['model.layers.123456789012.self_attn.k_scale', /by its name/],
  ['kv_cache_scaling_factor', /by its name/],
] as const;

for (const [name, why] of strangers) {
  test(`reports ${name}`, async () => {
    const good = Object.fromEntries(['0', '1'].map((n) => [`model.layers.${n}.self_attn.attn.kv_scale`, f32([1], 0.25)]));
    const { scales, warnings } = await readTold(checkpoint({ ...good, [name]: f32([1], -1) }));
    assert.equal(numbers(scales), [[[0.25], [0.25]], [[0.25], [0.25]]]);
    assert.equal(scales.report.unmatched.map(({ tensor, file }) => [tensor, file]), [[name, 'model.safetensors']]);
    assert.match(scales.report.unmatched[0].why, why);
    assert.is(warnings.length, 1);
    assert.ok(warnings[0].includes(name));
  });
}

for (const name of ['q_scale', 'q_cache.scale', 'q.scale', 'q_proj.q_scale', 'attn.q_scale']) {
  test(`reads ${name} as that of queries`, async () => {
    const tensors = { 'model.layers.0.self_attn.k_scale': f32([1], 0.25), 'model.layers.0.self_attn.v_scale': f32([1], 0.25), [`model.layers.0.self_attn.${name}`]: f32([1], 0.125) };
    const { scales, warnings } = await readTold(checkpoint(tensors, { ...model, num_hidden_layers: 1 }));
    assert.equal([...scales.layers[0].qScale!], [0.125]);
    assert.equal(warnings, []);
  });
}

test('a name that is long on purpose takes no time', async () => {
  const begin = performance.now();
  const { scales } = await readTold(checkpoint({ [`kv_cache${'scal'.repeat(250_000)}-`]: f32([1], 0.25), [`${'x'.repeat(1e6)}.k_scale`]: f32([1], 0.25), [`${'model.'.repeat(1e5)}layers.0.self_attn.k_scale`]: f32([1], -1) }));
  assert.is(scales.report.unmatched.length, 2);
  assert.ok(performance.now() - begin < 5000);
});

test('scales of weights and inputs are none of these', async () => {
  const others = ['k_proj.weight_scale', 'k_proj.input_scale', 'k_proj.weight_scale_2', 'v_proj.weight_scale_inv', 'k_proj.scales', 'k_proj.qzeros', 'wk.qscale_act', 'k_norm.weight', 'k_proj.activation_scale'];
  const tensors = Object.fromEntries(others.map((name) => [`model.layers.0.self_attn.${name}`, f32([1], 0)]));
  const { scales } = await readTold(checkpoint({ ...tensors, 'model.layers.0.self_attn.attn.kv_scale': f32([1], 0.25), 'model.layers.1.self_attn.attn.kv_scale': f32([1], 0.25) }));
  assert.equal(scales.report.unmatched, []);
  assert.is(scales.report.found.length, 2);
});
