// The scan explorer's formulas with the numbers in them, and its tables.
(function (root) {
  "use strict";

  const { format, element, table } = globalThis.ssmCommon;
  const { RULES } = globalThis.ssmRules;
  const { KINDS } = globalThis.ssmSetting;

  const sub = (index) => (index === "" || index === undefined ? null : element("sub", {}, String(index)));
  const math = (symbol, index) => element("span", { class: "ex-math" }, [symbol, sub(index)]);
  const bar = (symbol, index) =>
    element("span", { class: "ex-math" }, [element("span", { class: "ex-bar-over" }, symbol), sub(index)]);
  const exp = (inside) => [
    element("span", { class: "ex-roman" }, "exp("),
    math(inside),
    element("span", { class: "ex-roman" }, ")"),
  ];
  const plain = (value) => (value < 0 ? `(${format(value)})` : format(value));
  const result = (name, value) => element("b", { "data-name": name, "data-value": value }, format(value));

  // B̄ under each rule
  const WRITES = {
    zoh: () => ["(", exp("ΔA"), " − 1) ∕ ", math("ΔA"), " · ", math("ΔB")].flat(),
    mamba: () => [math("ΔB")],
    bilinear: () => ["1 ∕ (1 − ", math("ΔA"), "∕2) · ", math("ΔB")],
  };

  const row = (left, formula, numbers, value) =>
    element("div", { class: "ex-formula" }, [
      element("span", { class: "ex-left" }, left),
      element(
        "span",
        { class: "ex-right" },
        [" = ", formula, numbers === null ? null : [" = ", numbers].flat(), " = ", value].flat(2),
      ),
    ]);

  const sum = (terms) => terms.flatMap((term, k) => (k === 0 ? [term] : [" + ", term]));

  function steps({ rule, A, tokens }, { A_bar, B_bar, h, y, M }, t, n) {
    const { x, delta, B, C } = tokens[t];
    const z = delta * A[n];
    const many = A.length > 1;
    const before = t === 0 ? 0 : h[t - 1][n];
    const forget = {
      zoh: [exp("ΔA"), `exp(${format(z)})`],
      mamba: [exp("ΔA"), `exp(${format(z)})`],
      bilinear: [
        ["(1 + ", math("ΔA"), "∕2) ∕ (1 − ", math("ΔA"), "∕2)"],
        `${format(1 + z / 2)} ∕ ${format(1 - z / 2)}`,
      ],
    }[rule];
    const factor = RULES[rule].p(z);
    const weight = `${format(delta)} × ${plain(B[n])}`;
    return [
      row(
        math("ΔA"),
        [math("Δ", t + 1), " ", math("A", many ? n + 1 : "")],
        `${format(delta)} × ${plain(A[n])}`,
        result("z", z),
      ),
      row(bar("A", t + 1), forget[0], forget[1], result("A_bar", A_bar[t][n])),
      row(
        bar("B", t + 1),
        WRITES[rule](),
        rule === "mamba" ? weight : `${format(factor)} × ${weight}`,
        result("B_bar", B_bar[t][n]),
      ),
      row(
        math("h", t + 1),
        [bar("A", t + 1), " ", math("h", t), " + ", bar("B", t + 1), " ", math("x", t + 1)],
        `${format(A_bar[t][n])} × ${plain(before)} + ${plain(B_bar[t][n])} × ${plain(x)}`,
        result("h", h[t][n]),
      ),
      row(
        math("y", t + 1),
        many ? ["Σ ", math("C", t + 1), " ", math("h", t + 1)] : [math("C", t + 1), " ", math("h", t + 1)],
        sum(C.map((c, k) => `${plain(c)} × ${plain(h[t][k])}`)),
        result("y", y[t]),
      ),
      row(
        math("y", t + 1),
        sum(
          tokens
            .slice(0, t + 1)
            .flatMap((_, s) => [
              element("span", { class: "ex-term" }, [
                element("b", { "data-name": "weight", "data-value": M[t][s] }, plain(M[t][s])),
                " ",
                math("x", s + 1),
              ]),
            ]),
        ),
        null,
        result(
          "y_by_inputs",
          M[t].reduce((total, w, s) => total + w * tokens[s].x, 0),
        ),
      ),
    ];
  }

  const line = (head, cells) =>
    element("tr", {}, [
      element("th", { scope: "row" }, head),
      ...cells.map(([name, value]) =>
        element("td", { "data-name": name, "data-value": value }, value === null ? "" : format(value, 6)),
      ),
    ]);

  function tables({ A, tokens }, { A_bar, B_bar, h, y, M }) {
    const index = (n) => (A.length > 1 ? n + 1 : "");
    const perState = A.flatMap((_, n) => [
      ...[math("B", index(n)), math("C", index(n))],
      ...[bar("A", index(n)), bar("B", index(n)), math("h", index(n))],
    ]);
    const ofState = (t, n) => [
      ...[
        ["B", tokens[t].B[n]],
        ["C", tokens[t].C[n]],
      ],
      ...[
        ["A_bar", A_bar[t][n]],
        ["B_bar", B_bar[t][n]],
        ["h", h[t][n]],
      ],
    ];
    const rows = tokens.map(({ kind, x, delta }, t) =>
      line(`${t + 1} ${KINDS[kind]}`, [
        ...[
          ["x", x],
          ["delta", delta],
        ],
        ...A.flatMap((_, n) => ofState(t, n)),
        ["y", y[t]],
      ]),
    );
    const memory = M.map((row, t) =>
      line(
        math("y", t + 1),
        row.map((weight, s) => ["M", s > t ? null : weight]),
      ),
    );
    return [
      table("Each token", ["token", math("x"), math("Δ"), ...perState, math("y")], rows),
      table("What each output holds of each input", ["output", ...tokens.map((_, s) => math("x", s + 1))], memory),
    ];
  }

  root.ssmFormulas = { math, bar, steps, tables };
})(globalThis);
