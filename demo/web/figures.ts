/** What each cache costs, and how far the second is from the first, in numbers. */
import { count, divergence, share, times } from '../../src/evaluate/report/text.js';
import type { Pair, Started, Stored } from './compare.js';
import { byId, element, exactly, oncePerFrame } from './dom.js';

/** 41370 → 41.4 kB. */
export function bytes(value: number): string {
  for (const [unit, size] of [['GB', 1e9], ['MB', 1e6], ['kB', 1e3]] as const) if (value >= size) return `${(value / size).toFixed(value < 100 * size ? 1 : 0)} ${unit}`;
  return `${count(value)} B`;
}

const sides = ['a', 'b'] as const;

export class Figures {
  readonly #kl: number[] = [];
  #agreed = 0;
  #bytesPerToken: Pair<number> = [0, 0];
  #speed: Pair<number> = [NaN, NaN];
  readonly #show = oncePerFrame(() => this.#write());

  begin({ bytesPerToken }: Started): void {
    this.#kl.length = 0;
    this.#agreed = 0;
    this.#bytesPerToken = bytesPerToken;
    this.#speed = [NaN, NaN];
    this.#show();
  }

  add({ kl, agreed, tokensPerSecond }: Stored): void {
    this.#kl.push(...kl);
    this.#agreed += agreed;
    this.#speed = tokensPerSecond;
    this.#show();
  }

  #write(): void {
    const tokens = this.#kl.length;
    const [first] = this.#bytesPerToken;
    for (const [i, side] of sides.entries()) {
      const each = this.#bytesPerToken[i];
      const compared = i === 0 ? [] : [element('small', {}, `${times(each / first)} A’s`)];
      byId(`per-token-${side}`).replaceChildren(`${count(each)} B`, ...compared);
      byId(`total-${side}`).replaceChildren(bytes(each * tokens), element('small', {}, `${count(tokens)} tokens`));
      byId(`speed-${side}`).replaceChildren(...(Number.isFinite(this.#speed[i]) ? [count(Math.round(this.#speed[i])), element('small', {}, 'tokens per second')] : ['–']));
    }
    if (tokens === 0) return;
    const mean = this.#kl.reduce((sum, kl) => sum + kl, 0) / tokens;
    let most = 0;
    for (const [i, kl] of this.#kl.entries()) if (kl > this.#kl[most]) most = i;
    byId('kl-mean').replaceChildren(exactly(mean, divergence(mean)), element('small', {}, 'nats per token'));
    byId('kl-most').replaceChildren(exactly(this.#kl[most], divergence(this.#kl[most])), element('small', {}, `after token ${count(most)}`));
    byId('agreement').replaceChildren(share(this.#agreed / tokens), element('small', {}, `of ${count(tokens)} tokens`));
  }
}
