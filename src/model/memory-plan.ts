/** What 32-bit addresses reach. */
const MOST_BYTES = 2 ** 32;

/** Lays out arrays of f32 one after the other, and makes the memory when all are known: growing one detaches its views. */
export class MemoryPlan {
  // Address 0 stays unused.
  private end = 16;
  private readonly contents: { readonly address: number; readonly values: Float32Array }[] = [];

  /**
   * Room for `count` values, at the byte address that is returned.
   * @throws RangeError for more than a WebAssembly memory holds
   */
  reserve(count: number): number {
    const address = this.end;
    this.end += Math.ceil(count / 4) * 16;
    if (this.end > MOST_BYTES) throw new RangeError(`the model, its weights and what it computes at a time as f32, expected at most 4 GiB, got ${(this.end / 2 ** 30).toFixed(1)} GiB or more`);
    return address;
  }

  /** What `build` copies to a place that was reserved. */
  fill(address: number, values: Float32Array): void {
    this.contents.push({ address, values });
  }

  /** Room for the values, which `build` copies in. */
  place(values: Float32Array): number {
    const address = this.reserve(values.length);
    this.fill(address, values);
    return address;
  }

  build(): WebAssembly.Memory {
    const memory = new WebAssembly.Memory({ initial: Math.ceil(this.end / 65536) });
    for (const { address, values } of this.contents) new Float32Array(memory.buffer, address, values.length).set(values);
    return memory;
  }
}
