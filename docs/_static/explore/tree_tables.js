// The scan trees in numbers: work and depth beside those of the sequential scan, and two tables.
(function (root) {
  "use strict";

  const { format, element, table } = globalThis.ssmCommon;

  const pair = ({ a, b }) => `(${format(a)}, ${format(b)})`;
  const number = (name, value, text) => element("td", { "data-name": name, "data-value": value }, text);
  const heading = (place) => element("th", { scope: "row" }, String(place));
  const subscript = (value) => [...String(value)].map((digit) => "₀₁₂₃₄₅₆₇₈₉"[digit]).join("");

  function meter(name, title, unit, now, all, sequential) {
    const share = (value) => `${(100 * value) / Math.max(all, sequential)}%`;
    const shown = (tag, key, value) => element(tag, { "data-name": key, "data-value": value }, String(value));
    return element("div", { class: "ex-meter" }, [
      element("div", { class: "ex-meter-head" }, [
        element("b", {}, title),
        element("span", {}, [shown("b", `${name}-now`, now), " of ", shown("span", name, all), ` ${unit}`]),
      ]),
      element("div", { class: "ex-track", "aria-hidden": "true" }, [
        element("div", { class: "ex-track-all", style: `width:${share(all)}` }),
        element("div", { class: "ex-track-now", style: `width:${share(now)}` }),
        element("div", { class: "ex-track-mark", style: `left:${share(sequential)}` }),
      ]),
      element("div", { class: "ex-what" }, ["one after the other: ", shown("span", `${name}-sequential`, sequential)]),
    ]);
  }

  function meters(rounds, after, step) {
    const work = (count) => rounds.slice(0, count).reduce((sum, { pairs }) => sum + pairs.length, 0);
    const depth = (count) => Math.max(...after[count].map(({ chain }) => chain));
    const sequential = after[0].length - 1;
    return [
      meter("work", "Work", "combines", work(step), work(rounds.length), sequential),
      meter("depth", "Depth", "in the longest chain", depth(step), depth(rounds.length), sequential),
    ];
  }

  // the pairs that combined in this step; `at` gives an element's place in the sequence
  function pairsTable(pairs, before, now, at) {
    const row = ({ into, source }) =>
      element("tr", { "data-into": at(into), "data-source": at(source) }, [
        ...[heading(at(into)), element("td", {}, String(at(source)))],
        ...[element("td", {}, pair(before[into])), element("td", {}, pair(before[source]))],
        ...["a", "b"].map((name) => number(name, now[into][name], format(now[into][name], 4))),
      ]);
    const heads = ["position", "absorbs", "(a₂, b₂)", "(a₁, b₁)", "a₂a₁", "a₂b₁ + b₂"];
    return table("This step: (a₂, b₂) ∘ (a₁, b₁) = (a₂a₁, a₂b₁ + b₂)", heads, pairs.map(row));
  }

  function elementsTable(now, at, covers, letter) {
    const row = (one) => {
      const place = at(one.last);
      return element("tr", { "data-place": place }, [
        ...[heading(place), element("td", { "data-name": "covers" }, covers(one))],
        ...["a", "b"].map((name) => number(name, one[name], format(one[name], 4))),
        number("chain", one.chain, String(one.chain)),
        element("td", {}, one.first === 0 ? `yes: ${letter}${subscript(place)} = b` : "not yet"),
      ]);
    };
    const rows = [...now].sort((p, q) => at(p.last) - at(q.last)).map(row);
    const heads = ["position", "covers", "a", "b", "chain", "finished"];
    return table("Each position, and the steps that its pair (a, b) stands for", heads, rows);
  }

  root.ssmTreeTables = { meters, pairsTable, elementsTable };
})(globalThis);
