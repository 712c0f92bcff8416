// What can be set in the scan trees, and a setting as an address.
(function (root) {
  "use strict";

  const { roundsOf } = globalThis.ssmRounds;

  const OPTIONS = {
    scan: { hillis_steele: "Hillis–Steele", blelloch: "Blelloch", chunked: "Chunked" },
    length: { 8: "8", 16: "16" },
    way: { forward: "forward", reverse: "reverse" },
    chunk: { 2: "2", 4: "4", 8: "8" },
    values: { sum: "Running sum", decay: "Decay ½", drawn: "Drawn" },
  };
  const START = { scan: "hillis_steele", length: 8, way: "forward", chunk: 4, values: "decay", seed: 1, step: 0 };

  // tenths, which the eye can follow, from a generator with a seed, so that a link repeats them
  function drawn(seed, length) {
    let state = seed >>> 0;
    const next = () => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return state / 2 ** 32;
    };
    next();
    const draw = (low, high) => Array.from({ length }, () => Math.round(10 * (low + (high - low) * next())) / 10);
    return { a: draw(0.1, 1), b: draw(-2, 2) };
  }

  const valuesOf = ({ values, seed, length }) =>
    values === "drawn"
      ? drawn(seed, length)
      : { a: Array(length).fill(values === "sum" ? 1 : 0.5), b: Array(length).fill(1) };

  const kept = (name, text) => (typeof START[name] === "number" ? Number(text) : text);

  // null unless every choice is there and one of those that the page offers
  function fromPairs(pairs) {
    const known = (name) =>
      name in OPTIONS ? Object.hasOwn(OPTIONS[name], pairs.get(name) ?? "") : /^\d{1,9}$/.test(pairs.get(name) ?? "");
    if (!Object.keys(START).every(known)) return null;
    const found = Object.fromEntries(Object.keys(START).map((name) => [name, kept(name, pairs.get(name))]));
    if (found.chunk >= found.length) return null;
    return { ...found, step: Math.min(found.step, roundsOf(found.scan, found.length, found.chunk).length) };
  }

  root.ssmTreeSetting = { OPTIONS, START, kept, valuesOf, fromPairs };
})(globalThis);
