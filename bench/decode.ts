/** How long does attention of one token over 4,096 keys take, for each shape and cache format, and what share is that of the ceiling? */
import { raceFormats } from './format-race.js';
import { report } from './harness.js';

report('Decode: one token, 4,096 keys', await raceFormats(4095, 1, 6));
