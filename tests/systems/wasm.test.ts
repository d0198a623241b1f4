import { wasmBackend } from '../../src/index.js';
import { suite } from '../suite.js';
import { testSystems } from './grids.js';

const backend = wasmBackend();
testSystems(suite('systems’ grids, wasm'), () => backend, { whole: true });
