// What can be set in the scan explorer: the fields with their ranges and sliders, and a setting as an address.
(function (root) {
  "use strict";

  const { RULES } = globalThis.ssmRules;
  const { format } = globalThis.ssmCommon;

  const COUNTS = { tokens: [4, 12], states: [1, 4] };
  const KINDS = { u: "useful", n: "noise", "-": "" };
  // a scale of one notch at 0 and then twenty to a factor of ten
  const NOTCHES = 81;
  const FIELDS = {
    x: { range: [-1000, 1000], slider: linear(-2, 2, 0.1), what: "input" },
    delta: { range: [0, 1000], slider: decades(-3, 1), symbol: "Δ", what: "step size" },
    B: { range: [-1000, 1000], slider: linear(-10, 10, 0.5), what: "write" },
    C: { range: [-1000, 1000], slider: linear(-2, 2, 0.1), what: "read" },
    A: { range: [-100, 0], slider: decades(-2, -1), what: "decay" },
  };

  // how a slider's position becomes a number, and back
  function linear(min, max, step) {
    return { min, max, step, value: (p) => Number(p.toFixed(2)), position: (v) => v };
  }
  function decades(lowest, sign) {
    return {
      min: 0,
      max: NOTCHES,
      step: 1,
      value: (p) => (p === 0 ? 0 : sign * Number((10 ** (lowest + (p - 1) / 20)).toPrecision(3))),
      position: (v) => (v === 0 ? 0 : Math.max(1, 1 + 20 * (Math.log10(Math.abs(v)) - lowest))),
    };
  }

  const symbolOf = (name) => FIELDS[name].symbol ?? name;
  const rangeText = (name) => FIELDS[name].range.map((v) => format(v)).join(" to ");
  const within = (value, [low, high]) => Number.isFinite(value) && value >= low && value <= high;

  const toPairs = ({ rule, A, tokens }) => [
    ["rule", rule],
    ["A", A.join()],
    ["kind", tokens.map(({ kind }) => kind).join("")],
    ["x", tokens.map(({ x }) => x).join()],
    ["delta", tokens.map(({ delta }) => delta).join()],
    ["B", tokens.map(({ B }) => B.join()).join(";")],
    ["C", tokens.map(({ C }) => C.join()).join(";")],
  ];

  // null unless every number is there and in its range
  function fromPairs(pairs) {
    const row = (name, text) => {
      const numbers = (text ?? "").split(",").map((part) => (part.trim() === "" ? NaN : Number(part)));
      return numbers.every((value) => within(value, FIELDS[name].range)) ? numbers : null;
    };
    const rule = pairs.get("rule"),
      kinds = pairs.get("kind") ?? "";
    const [A, x, delta] = ["A", "x", "delta"].map((name) => row(name, pairs.get(name)));
    if (!Object.hasOwn(RULES, rule) || !A || !x || !delta) return null;
    const [B, C] = ["B", "C"].map((name) => (pairs.get(name) ?? "").split(";").map((part) => row(name, part)));
    const fits = [B, C].every((rows) => rows.length === x.length && rows.every((r) => r?.length === A.length));
    if (!fits || delta.length !== x.length) return null;
    if (!within(x.length, COUNTS.tokens) || !within(A.length, COUNTS.states)) return null;
    const tokens = x.map((_, t) => ({
      kind: Object.hasOwn(KINDS, kinds[t] ?? "") ? kinds[t] : "-",
      ...{ x: x[t], delta: delta[t], B: B[t], C: C[t] },
    }));
    return { rule, A, tokens };
  }

  // A is a number for each state n, x and Δ one for each token t, B and C one for each token and state
  const holder = (setting, name, t) =>
    name === "A" ? setting : Array.isArray(setting.tokens[t][name]) ? setting.tokens[t] : null;
  const valueOf = (setting, name, t, n) => holder(setting, name, t)?.[name][n] ?? setting.tokens[t][name];
  function setValue(setting, name, t, n, value) {
    const held = holder(setting, name, t);
    if (held) held[name][n] = value;
    else setting.tokens[t][name] = value;
  }

  // new tokens repeat the last one; new states decay by one more, and copy the last one's B and C
  function resize({ tokens, A }, what, count) {
    if (what === "tokens") {
      while (tokens.length < count) tokens.push({ ...structuredClone(tokens.at(-1)), kind: "-" });
      tokens.length = count;
      return;
    }
    while (A.length < count) {
      A.push(Math.max(A.at(-1) - 1, FIELDS.A.range[0]));
      tokens.forEach(({ B, C }) => [B, C].forEach((row) => row.push(row.at(-1))));
    }
    [A, ...tokens.flatMap(({ B, C }) => [B, C])].forEach((row) => (row.length = count));
  }

  root.ssmSetting = {
    ...{ FIELDS, COUNTS, KINDS, symbolOf, rangeText, within },
    ...{ toPairs, fromPairs, valueOf, setValue, resize },
  };
})(globalThis);
