// The scan explorer's drawings: bars over the tokens, and the matrix of what each output holds of each input.
(function (root) {
  "use strict";

  const { compact, element } = globalThis.ssmCommon;
  const BAR = { height: 74, text: 14 };
  const CELL = 30;
  const SMALLEST = 0.2;

  // 1, 2 or 5 times a power of ten, so that the scale stands still under a small change; not below SMALLEST, so that
  // next to nothing looks like it
  function ceiling(values) {
    const top = Math.max(...values.map(Math.abs).filter(Number.isFinite), SMALLEST);
    const power = 10 ** Math.floor(Math.log10(top));
    return [1, 2, 5, 10].map((k) => k * power).find((limit) => limit >= top * (1 - 1e-12));
  }

  // Bars from zero. With `carried`, each is two parts end to end: what was carried over, then what was written.
  function bars(width, { name, columns, values, carried, low, high, label, selected }) {
    const limit = high ?? ceiling([...values, ...(carried ?? [])]);
    const both = low < 0 || [...values, ...(carried ?? [])].some((v) => v < 0);
    const span = BAR.height - (both ? 2 : 1) * BAR.text - 2;
    const zero = BAR.text + (both ? span / 2 : span);
    const scale = (both ? span / 2 : span) / limit;
    const place = (value) => zero - Math.max(-limit, Math.min(limit, value)) * scale;
    const step = width / columns;
    const thick = Math.min(34, step * 0.56);

    const svg = element("svg", {
      width,
      height: BAR.height,
      role: "img",
      "aria-label": `Bars: ${label} at each token`,
    });
    svg.append(element("line", { x1: 0, x2: width, y1: zero, y2: zero, class: "ex-zero" }));
    const block = (x, wide, from, to, cls) =>
      element("rect", {
        x,
        width: wide,
        y: Math.min(place(from), place(to)),
        height: Math.abs(place(from) - place(to)),
        class: cls,
      });

    values.forEach((value, t) => {
      const left = step * (t + 0.5) - thick / 2;
      if (carried) {
        svg.append(block(left, thick, 0, carried[t], "ex-bar-carried"));
        svg.append(block(left, thick, carried[t], value, value < carried[t] ? "ex-bar-minus" : "ex-bar"));
        svg.append(
          element("line", {
            x1: left - 3,
            x2: left + thick + 3,
            y1: place(value),
            y2: place(value),
            class: "ex-level",
          }),
        );
      } else {
        svg.append(block(left, thick, 0, value, value < 0 ? "ex-bar-minus" : "ex-bar"));
      }
      const top = Math.min(place(value), carried ? place(carried[t]) : zero, zero);
      const bottom = Math.max(place(value), carried ? place(carried[t]) : zero, zero);
      const y = value < 0 ? bottom + 11 : top - 4;
      const text = element(
        "text",
        { x: step * (t + 0.5), y, class: t === selected ? "ex-selected" : "", "data-name": name },
        compact(value),
      );
      text.dataset.token = t;
      text.dataset.value = value;
      svg.append(text);
    });
    return svg;
  }

  function memory(width, M, selected, select) {
    const size = width / M.length;
    const top = Math.max(...M.flat().map(Math.abs).filter(Number.isFinite), 1e-300);
    const svg = element("svg", {
      ...{ width, height: CELL * M.length, role: "img" },
      "aria-label": "The matrix of weights: a row for each output, a column for each input",
    });
    M.forEach((row, t) => {
      const group = element("g", { class: t === selected ? "ex-row ex-selected" : "ex-row", onclick: () => select(t) });
      row.forEach((weight, s) => {
        const box = { x: s * size + 1, y: t * CELL + 1, width: Math.max(0, size - 2), height: CELL - 2, rx: 3 };
        if (s > t) return;
        const share = Math.min(1, Math.abs(weight) / top);
        group.append(element("rect", { ...box, class: "ex-cell-none" }));
        group.append(
          element("rect", {
            ...box,
            class: weight < 0 ? "ex-cell-minus" : "ex-cell",
            "fill-opacity": share.toFixed(4),
          }),
        );
        const text = element(
          "text",
          { x: (s + 0.5) * size, y: t * CELL + CELL / 2 + 4, "data-name": "M" },
          compact(weight),
        );
        Object.assign(text.dataset, { row: t, column: s, value: weight });
        group.append(text);
      });
      svg.append(group);
    });
    svg.append(
      element("rect", {
        ...{ x: 0.75, y: selected * CELL + 0.25, width: (selected + 1) * size - 1.5, height: CELL - 0.5, rx: 4 },
        class: "ex-outline",
      }),
    );
    return svg;
  }

  root.ssmDrawings = { bars, memory };
})(globalThis);
