/** Lays out arrays of f32 one after the other, and makes the memory when all are known: growing one detaches its views. */
export class MemoryPlan {
  // Address 0 stays unused.
  private end = 16;
  private readonly contents: { readonly address: number; readonly values: Float32Array }[] = [];

  /** Room for `count` values, at the byte address that is returned. */
  reserve(count: number): number {
    const address = this.end;
    this.end += Math.ceil(count / 4) * 16;
    return address;
  }

  /** Room for the values, which `build` copies in. */
  place(values: Float32Array): number {
    const address = this.reserve(values.length);
    this.contents.push({ address, values });
    return address;
  }

  build(): WebAssembly.Memory {
    const memory = new WebAssembly.Memory({ initial: Math.ceil(this.end / 65536) });
    for (const { address, values } of this.contents) new Float32Array(memory.buffer, address, values.length).set(values);
    return memory;
  }
}
