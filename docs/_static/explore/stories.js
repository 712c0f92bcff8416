// The settings that the scan explorer starts from; scan_explorer.md says what to look at in each.
(function (root) {
  "use strict";

  // columns of numbers to tokens; a column that is one number holds for all of them
  function tokens(count, { x, delta, B = 1, C = 1, kinds = "" }, states = 1) {
    const at = (column, t) => (Array.isArray(column) ? column[t] : column);
    const every = (value) => Array(states).fill(value);
    return Array.from({ length: count }, (_, t) => ({
      kind: kinds[t] ?? "-",
      x: at(x, t),
      delta: at(delta, t),
      B: every(at(B, t)),
      C: every(at(C, t)),
    }));
  }

  const impulse = [1, 0, 0, 0, 0, 0, 0, 0];
  const speech = [1, -0.8, 0.6, 1];

  const STORIES = {
    article1: {
      title: "Article 1",
      rule: "zoh",
      A: [-1],
      tokens: tokens(4, { x: speech, delta: [0.1, 10, 10, 0.1], B: [10, 1, 1, 10], kinds: "unnu" }),
    },
    article2: {
      title: "Article 2",
      rule: "zoh",
      A: [-1],
      tokens: tokens(4, { x: speech, delta: [1, 0.001, 0.001, 1], kinds: "unnu" }),
    },
    reset: {
      title: "One large Δ",
      rule: "zoh",
      A: [-1],
      tokens: tokens(8, { x: [1, 0.5, 1, 0.5, -1, 0.5, 0.5, 0.5], delta: [0.2, 0.2, 0.2, 0.2, 10, 0.2, 0.2, 0.2] }),
    },
    hold: {
      title: "Hold",
      rule: "zoh",
      A: [-1],
      tokens: tokens(8, {
        x: [1, 0.7, -0.4, 0.9, -0.8, 0.3, -0.6, 0.5],
        delta: [1, 0, 0, 0, 0, 0, 0, 0],
        kinds: "unnnnnnn",
      }),
    },
    forget: {
      title: "Forget all",
      rule: "zoh",
      A: [-1],
      tokens: tokens(6, { x: [1, -0.5, 0.8, -1, 0.4, 0.9], delta: 10 }),
    },
    invariant: {
      title: "Time-invariant",
      rule: "zoh",
      A: [-1],
      tokens: tokens(8, { x: impulse, delta: 0.5 }),
    },
    scales: {
      title: "Four states",
      rule: "mamba",
      A: [-1, -2, -3, -4],
      tokens: tokens(8, { x: impulse, delta: 0.3 }, 4),
    },
    ringing: {
      title: "Bilinear rings",
      rule: "bilinear",
      A: [-10],
      tokens: tokens(8, { x: impulse, delta: 10 }),
    },
  };

  root.ssmStories = { STORIES };
})(globalThis);
