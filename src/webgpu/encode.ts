/** Encode by itself, to be checked: appends do the same to quotients. */
import type { Fp8Format } from '../formats.js';
import type { WebgpuBackend } from './backend.js';
import { ENCODE_WORKGROUP, encodeKernel } from './kernels.js';

/**
 * The codes of f32 values that follow each other as bits.
 * @param first the first value's bits
 * @param count how many, a multiple of 4
 */
export async function encodePatterns(backend: WebgpuBackend, format: Fp8Format, first: number, count: number): Promise<Uint8Array> {
  const kernel = encodeKernel(format);
  return backend.run(
    (gpu) => {
      const codes = gpu.reserve('out', count, 'count');
      const params = gpu.arena.write(Int32Array.of(first, count / 4));
      gpu.arena.flush();
      const record = (encoder: GPUCommandEncoder, results: GPUBuffer): void => {
        const pass = encoder.beginComputePass({ label: 'fp8-kv encode' });
        gpu.dispatch(pass, gpu.groups, kernel, [params, codes], Math.ceil(count / 4 / ENCODE_WORKGROUP));
        pass.end();
        encoder.copyBufferToBuffer(codes.buffer, 0, results, 0, count);
      };
      return gpu.readBack('encode', count, record, (bytes) => new Uint8Array(bytes.slice(0)));
    },
    [kernel],
  );
}
