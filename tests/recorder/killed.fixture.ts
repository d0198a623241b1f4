/** A process that ends in the middle of a call. */
import { pageLayout, wasmBackend } from '../../src/index.js';
import { WasmBackend } from '../../src/wasm/backend.js';

WasmBackend.prototype.attend = () => {
  process.kill(process.pid, 'SIGKILL');
  for (;;);
};
const backend = wasmBackend();
const pages = backend.createPages(pageLayout({ kvHeads: 1, headDim: 8, blockSize: 4 }), 3);
const key = Float32Array.from({ length: 16 }, (_, i) => Math.sin(i));
backend.append({ pages, key, value: key, slotMapping: Int32Array.of(8, 9) });
backend.attend({ pages, q: key, blockTable: Int32Array.of(2), cuSeqlensQ: Int32Array.of(0, 2), seqUsedK: Int32Array.of(2) });
