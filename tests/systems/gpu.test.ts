import { testOnGpu } from './on-gpu.js';

testOnGpu({ whole: false });
