/** Does a cache with 1 % subnormal codes take longer than one without any? */
import type { Fp8Format } from '../src/index.js';
import { random } from '../tests/random.js';
import { attention, fill, openBackends } from './attention.js';
import { figureOf, report, type Contestant } from './harness.js';
import { SEED } from './inputs.js';
import { median, race, type Run } from './race.js';
import { llama3 } from './shapes.js';

const KEYS = 4096;
const SHARE = 0.01;
const ROUNDS = 8;
const WARM_UP_MS = 150;
const mantissaBits = { e4m3fn: 3, e5m2: 2 } as const;

/** The codes with `share` of them subnormal, and no others: what is subnormal or zero besides becomes the smallest normal. */
function withSubnormals(codes: Uint8Array, format: Fp8Format, share: number): Uint8Array {
  const numbers = random(SEED);
  const smallestNormal = 1 << mantissaBits[format];
  return codes.map((code) => {
    const sign = code & 0x80;
    if (numbers.uniform() < share) return sign | (1 + numbers.integer(smallestNormal - 1));
    return sign | Math.max(code & 0x7f, smallestNormal);
  });
}

const raced: (Contestant & { readonly run: Run })[] = [];
for (const { backend, build, threads } of openBackends()) {
  for (const format of ['e4m3fn', 'e5m2'] as const) {
    for (const share of [0, SHARE]) {
      const cached = await fill(backend, llama3, format, KEYS);
      const tensors = await cached.pages.export();
      await cached.pages.import({
        ...tensors,
        keyCache: withSubnormals(tensors.keyCache as Uint8Array, format, share),
        valueCache: withSubnormals(tensors.valueCache as Uint8Array, format, share),
      });
      raced.push({ name: `${format}, ${100 * share} % subnormal`, build, threads, run: attention(cached, 1, KEYS) });
    }
  }
}
const times = await race(raced.map(({ run }) => run), ROUNDS, WARM_UP_MS);
/** Each pair stands together, the one without subnormals first. */
const figures = raced.map((one, i) => figureOf(one, times[i], () => ({ '÷ without': median(times[i]) / median(times[i - (i % 2)]) })));
report('Decode: subnormal codes', [{ title: `${llama3.name}, ${KEYS} keys`, figures }]);
