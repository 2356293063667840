// The operator's page, made anew every few seconds while somebody looks.

import { swap } from "./swap.js";

const PAUSE_MS = 5000;

setInterval(() => document.hidden || swap("figures"), PAUSE_MS);
