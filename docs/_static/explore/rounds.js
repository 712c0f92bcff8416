// The scans of ssm_edu/scan.py: each is a list of rounds, in which some positions absorb earlier ones, all at once.
(function (root) {
  "use strict";

  const powersBelow = (length) => {
    const powers = [];
    for (let d = 1; d < length; d *= 2) powers.push(d);
    return powers;
  };

  // positions first, first + step, … below length, each absorbing the one `distance` before it
  const round = (phase, length, first, step, distance) => {
    const pairs = [];
    for (let into = first; into < length; into += step) pairs.push({ into, source: into - distance });
    return { phase, pairs };
  };

  const SCANS = {
    sequential: (length) => {
      const rounds = [];
      for (let t = 1; t < length; t++) rounds.push(round("step", length, t, length, 1));
      return rounds;
    },
    hillis_steele: (length) => powersBelow(length).map((d) => round("doubling", length, d, 1, d)),
    blelloch: (length) => {
      const powers = powersBelow(length);
      const up = powers.map((d) => round("up-sweep", length, 2 * d - 1, 2 * d, d));
      const down = powers.reverse().map((d) => round("down-sweep", length, 3 * d - 1, 2 * d, d));
      return [...up, ...down];
    },
    chunked: (length, chunk) => {
      const rounds = [];
      for (let j = 1; j < chunk; j++) rounds.push(round("inside the chunks", length, j, chunk, 1));
      for (let end = 2 * chunk - 1; end < length; end += chunk) {
        rounds.push(round("along the ends", length, end, length, chunk));
      }
      // each of these reads the finished end of the chunk before it, so they are one round
      const pairs = [];
      for (let start = chunk; start < length; start += chunk) {
        for (let j = 0; j < chunk - 1; j++) pairs.push({ into: start + j, source: start - 1 });
      }
      rounds.push({ phase: "into the chunks", pairs });
      return rounds;
    },
  };

  const roundsOf = (name, length, chunk) => SCANS[name](length, chunk).filter(({ pairs }) => pairs.length > 0);

  // (a₂, b₂)∘(a₁, b₁): what acts first stands on the right
  const combine = (second, first) => ({ a: second.a * first.a, b: second.a * first.b + second.b });

  // The elements before the first round and after each; an element knows what it covers, first … last in the order
  // of the scan, and the longest chain of combines behind it.
  function states(elements, rounds) {
    const start = elements.map(({ a, b }, k) => ({ a, b, first: k, last: k, chain: 0 }));
    const after = [start];
    for (const { pairs } of rounds) {
      const before = after[after.length - 1];
      const next = before.slice();
      for (const { into, source } of pairs) {
        const second = before[into],
          first = before[source];
        next[into] = {
          ...combine(second, first),
          first: first.first,
          last: second.last,
          chain: Math.max(second.chain, first.chain) + 1,
        };
      }
      after.push(next);
    }
    return after;
  }

  // In reverse, g_t = a_{t+1} g_{t+1} + b_t: the elements from the end, each with the factor after it. The last has
  // none; 1 stands in, and multiplies nothing.
  const inOrder = (a, b, reverse) =>
    reverse
      ? b.map((_, k) => ({ a: k === 0 ? 1 : a[a.length - k], b: b[b.length - 1 - k] }))
      : b.map((_, k) => ({ a: a[k], b: b[k] }));

  root.ssmRounds = { SCANS, roundsOf, combine, states, inOrder };
})(globalThis);
