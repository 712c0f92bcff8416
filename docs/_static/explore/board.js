// The scan explorer's board: a column for each token, from its sliders down to the matrix.
(function (root) {
  "use strict";

  const { compact, element } = globalThis.ssmCommon;
  const { FIELDS, KINDS, symbolOf, valueOf, setValue } = globalThis.ssmSetting;
  const { math, bar } = globalThis.ssmFormulas;
  const { bars, memory } = globalThis.ssmDrawings;
  const { slider } = globalThis.ssmFields;

  const label = (symbol, index, what) =>
    element("div", { class: "ex-label" }, [
      element("span", { class: "ex-symbol" }, [symbol, index === "" ? null : element("sub", {}, String(index))]),
      element("span", { class: "ex-what" }, what),
    ]);

  const line = (symbol, index, what, cells) =>
    element("div", { class: "ex-line" }, [label(symbol, index, what), cells]);

  const grid = (cells) => element("div", { class: "ex-cells ex-grid" }, cells);

  function head(kind, t, select) {
    const id = `token-${t}`;
    return element("div", { class: "ex-head" }, [
      element("input", { type: "radio", name: "token", value: t, id, onchange: () => select(t) }),
      element("label", { for: id }, [
        element("span", { class: "ex-number" }, String(t + 1)),
        KINDS[kind] ? element("span", { class: `ex-kind ex-kind-${kind}` }, KINDS[kind]) : null,
      ]),
    ]);
  }

  function fader(setting, name, t, n, { change, select }) {
    const read = () => valueOf(setting, name, t, n);
    const write = (value) => setValue(setting, name, t, n, value);
    const input = slider(name, `${symbolOf(name)} of token ${t + 1}`, read, write, change);
    input.id = `${name}-${t}`;
    input.classList.add("ex-up");
    input.addEventListener("focus", () => select(t));
    const value = element("span", { class: "ex-value", "data-name": name, "data-token": t });
    const update = () => {
      input.update();
      value.textContent = compact(read());
      value.dataset.value = read();
    };
    return { node: element("div", { class: "ex-fader" }, [input, value]), update };
  }

  const memoryCaption = (many) =>
    element("p", { class: "ex-caption" }, [
      ...[
        "The memory: row ",
        math("y", "t"),
        ", column ",
        math("x", "s"),
        ". How much of each input each output holds, ",
      ],
      many ? "Σ " : null,
      ...[math("C", "t"), " ", bar("A", "t"), " ⋯ ", bar("A", "s+1"), " ", bar("B", "s"), "."],
    ]);

  // Built anew when its shape changes, updated in place otherwise, so that focus stays where it is.
  function build(node, setting, n, actions) {
    const { tokens, A } = setting;
    const many = A.length > 1;
    const index = (name) => (many && (name === "B" || name === "C") ? n + 1 : "");
    const inputs = ["x", "delta", "B", "C"].map((name) => ({
      name,
      faders: tokens.map((_, t) => fader(setting, name, t, n, actions)),
    }));
    const cells = () => element("div", { class: "ex-cells" });
    const rows = [
      { name: "A_bar", symbol: bar("A"), index: index("B"), what: "keeps", cells: cells() },
      { name: "B_bar", symbol: bar("B"), index: index("B"), what: "writes", cells: cells() },
      ...A.map((_, k) => ({ name: `h${k}`, symbol: "h", index: many ? k + 1 : "", what: "state", cells: cells() })),
      { name: "y", symbol: "y", index: "", what: "output", cells: cells() },
    ];
    const heads = line("", "", "token", grid(tokens.map(({ kind }, t) => head(kind, t, actions.select))));
    heads.classList.add("ex-heads");
    heads.setAttribute("role", "radiogroup");
    heads.setAttribute("aria-label", "Token");
    const outputs = element("div", { class: "ex-label ex-memory-labels" });
    const matrix = cells();

    node.style.setProperty("--columns", tokens.length);
    node.classList.toggle("ex-many", tokens.length > 6);
    node.replaceChildren(
      heads,
      ...inputs.map(({ name, faders }) =>
        line(symbolOf(name), index(name), FIELDS[name].what, grid(faders.map((one) => one.node))),
      ),
      element("div", { class: "ex-rule" }),
      ...rows.map((row) => line(row.symbol, row.index, row.what, row.cells)),
      memoryCaption(many),
      element("div", { class: "ex-line ex-memory" }, [outputs, matrix]),
    );

    function update(result, t) {
      node.style.setProperty("--selected", t);
      heads.querySelectorAll("input").forEach((input, at) => (input.checked = at === t));
      inputs.forEach(({ faders }) => faders.forEach((one) => one.update()));
      const width = matrix.clientWidth;
      if (width) draw(width, result, t);
    }

    function draw(width, { A_bar, B_bar, carried, h, y, M }, t) {
      const column = (values, k) => values.map((row) => row[k]);
      const series = {
        A_bar: { values: column(A_bar, n), low: setting.rule === "bilinear" ? -1 : 0, high: 1 },
        B_bar: { values: column(B_bar, n) },
        y: { values: y },
      };
      A.forEach((_, k) => (series[`h${k}`] = { values: column(h, k), carried: column(carried, k) }));
      rows.forEach(({ name, what, index, cells }) => {
        const about = { name, label: `${what} ${index}`.trim(), columns: tokens.length, selected: t };
        cells.replaceChildren(bars(width, { ...about, ...series[name] }));
      });
      matrix.replaceChildren(memory(width, M, t, actions.select));
      outputs.replaceChildren(
        ...y.map((_, at) => element("span", { class: at === t ? "ex-selected" : "" }, math("y", at + 1))),
      );
    }

    return update;
  }

  root.ssmBoard = { build };
})(globalThis);
