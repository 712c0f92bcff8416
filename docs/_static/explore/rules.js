// The rules of ssm_edu/discretize.py for a diagonal A, and the scan that they drive. Pure functions of plain arrays.
(function (root) {
  "use strict";

  const SMALLEST_NORMAL = 2 ** -1022;

  // expm1 keeps φ₁(z) = (eᶻ − 1)/z exact near z = 0, where eᶻ − 1 cancels
  const phi1 = (z) => (Math.abs(z) < SMALLEST_NORMAL ? 1 : Math.expm1(z) / z);

  // Ā = alpha(z) and B̄ = Δ p(z) B, with z = ΔA
  const RULES = {
    zoh: { alpha: Math.exp, p: phi1 },
    mamba: { alpha: Math.exp, p: () => 1 },
    bilinear: { alpha: (z) => (1 + z / 2) / (1 - z / 2), p: (z) => 1 / (1 - z / 2) },
  };

  const discretize = (rule, A, B, delta) => ({
    A_bar: RULES[rule].alpha(delta * A),
    B_bar: delta * RULES[rule].p(delta * A) * B,
  });

  // h_t = Ā_t h_{t−1} + B̄_t x_t for each state n, y_t = Σ_n C_t h_t; arrays are indexed [t][n], M is [t][s]
  function scan({ rule, A, tokens }) {
    const maps = tokens.map(({ delta, B }) => A.map((a, n) => discretize(rule, a, B[n], delta)));
    const A_bar = maps.map((row) => row.map((map) => map.A_bar));
    const B_bar = maps.map((row) => row.map((map) => map.B_bar));
    const carried = [],
      written = [],
      h = [],
      y = [];
    tokens.forEach(({ x, C }, t) => {
      carried.push(A.map((_, n) => (t === 0 ? 0 : A_bar[t][n] * h[t - 1][n])));
      written.push(A.map((_, n) => B_bar[t][n] * x));
      h.push(A.map((_, n) => carried[t][n] + written[t][n]));
      y.push(A.reduce((sum, _, n) => sum + C[n] * h[t][n], 0));
    });
    return { A_bar, B_bar, carried, written, h, y, M: memory(A_bar, B_bar, tokens) };
  }

  // M[t][s] = Σ_n C_t Ā_t ⋯ Ā_{s+1} B̄_s: how much of input s the output at t holds, so that y = M x
  function memory(A_bar, B_bar, tokens) {
    return tokens.map(({ C }, t) => {
      const row = tokens.map(() => 0);
      C.forEach((c, n) => {
        let kept = 1;
        for (let s = t; s >= 0; s--) {
          row[s] += c * kept * B_bar[s][n];
          kept *= A_bar[s][n];
        }
      });
      return row;
    });
  }

  root.ssmRules = { RULES, discretize, scan };
})(globalThis);
