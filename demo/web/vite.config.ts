import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vite';

export default defineConfig({
  root: fileURLToPath(new URL('.', import.meta.url)),
  // The page may lie anywhere.
  base: './',
  build: { outDir: fileURLToPath(new URL('../../build/web', import.meta.url)), emptyOutDir: true, assetsInlineLimit: 0, target: 'es2022' },
  worker: { format: 'es' },
  // The library's and the model's files lie beside the page's.
  server: { fs: { allow: [fileURLToPath(new URL('../..', import.meta.url))] } },
  // Found late, they would make the page load twice.
  optimizeDeps: { include: ['@assemblyscript/loader', '@huggingface/tokenizers', '@noble/hashes/sha2.js'] },
});
