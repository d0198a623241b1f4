/** When tokens are quantized, by the words of the rules: a count, and nothing else. */
import type { ResidualRule } from '../../src/cache/residual.js';

export class PlainResidual {
  /** Tokens in all, and how many of them are quantized by now. */
  length = 0;
  quantized = 0;
  /** How many the last step read as quantized. */
  read = 0;

  constructor(
    private readonly rule: ResidualRule,
    private readonly residual: number,
    private readonly blockSize: number,
    /** First tokens that are quantized at once. */
    private readonly sinkTokens = 0,
  ) {}

  /** A step adds tokens. */
  add(tokens: number): void {
    if (this.rule === 'page') this.#addPages(tokens);
    else this.#addAsHuggingFace(tokens);
    const first = Math.min(this.sinkTokens, this.length);
    this.quantized = Math.max(this.quantized, first);
    this.read = Math.max(this.read, first);
  }

  /** Of a fork. */
  copy(): PlainResidual {
    const copy = new PlainResidual(this.rule, this.residual, this.blockSize, this.sinkTokens);
    Object.assign(copy, { length: this.length, quantized: this.quantized, read: this.read });
    return copy;
  }

  truncate(length: number): void {
    this.length = length;
    this.quantized = Math.min(this.quantized, length);
    this.read = Math.min(this.read, length);
  }

  #addPages(tokens: number): void {
    this.length += tokens;
    while (this.length - this.quantized - this.residual >= this.blockSize) this.quantized += this.blockSize;
    this.read = this.quantized;
  }

  /** As Transformers' cache_utils.py has it: quantized states, and a list of recent ones that is either empty or has a length. */
  #addAsHuggingFace(tokens: number): void {
    const isFirst = this.length === 0;
    const recent = this.length - this.quantized;
    this.length += tokens;
    this.read = isFirst ? tokens : this.quantized;
    if (isFirst || (recent > 0 && recent + 1 >= this.residual)) this.quantized = this.length;
  }
}
