// The drawing of a scan: a row of nodes before the first round and after each, and a line for each pair.
(function (root) {
  "use strict";

  const { format, element } = globalThis.ssmCommon;
  const WIDE = 40; // pixels a column needs before its node can hold text

  const path = (d, ...classes) => element("path", { d, class: classes.filter(Boolean).join(" ") });

  function layout(width, columns, rows) {
    const column = width / columns;
    const wide = column >= WIDE;
    const disc = Math.min(14, column - 5);
    const [nodeWidth, nodeHeight] = wide ? [Math.min(52, column - 6), 22] : [disc, disc];
    const [gap, top, text] = wide ? [66, 40, 15] : [42, 32, 0];
    const y = (row) => top + row * gap;
    return {
      ...{ column, wide, nodeWidth, nodeHeight, gap, y },
      x: (place) => (place + 0.5) * column,
      over: (row) => y(row) - nodeHeight / 2,
      under: (row) => y(row) + nodeHeight / 2 + text, // there is room for a number below a node
      height: y(rows - 1) + (wide ? 34 : 14),
    };
  }

  // a slice of a circle, from the top, clockwise
  function sector(x, y, r, share) {
    const angle = 2 * Math.PI * share;
    const end = `${x + r * Math.sin(angle)} ${y - r * Math.cos(angle)}`;
    return `M${x} ${y}V${y - r}A${r} ${r} 0 ${share > 0.5 ? 1 : 0} 1 ${end}Z`;
  }

  // A finished node is full. Where there is no room for text, others are filled by the share of the prefix they cover.
  function node({ wide, nodeWidth, nodeHeight }, x, y, one, { covers, value, data, changed, future }) {
    const finished = one.first === 0;
    const classes = ["tr-node", changed && "tr-changed", finished && "tr-finished", future && "tr-future"];
    const group = element("g", { class: classes.filter(Boolean).join(" ") });
    const corner = { x: x - nodeWidth / 2, y: y - nodeHeight / 2, rx: nodeHeight / 2 };
    group.append(element("rect", { ...corner, width: nodeWidth, height: nodeHeight, class: "tr-body" }));
    if (!wide && !finished) {
      const share = (one.last - one.first + 1) / (one.last + 1);
      group.append(path(sector(x, y, nodeHeight / 2 - 2.5, share), "tr-share"));
    }
    if (wide && !future) {
      const small = nodeWidth < 46 ? " tr-small" : "";
      group.append(element("text", { x, y: y + 4, class: `tr-covers${small}` }, covers));
      group.append(element("text", { x, y: y + nodeHeight / 2 + 12, class: "tr-value", ...data }, value));
    }
    return group;
  }

  // into a node: a line from the position itself, and a bent one from the position that it absorbs
  function joins({ over, under }, row, from, into, state) {
    const [start, end] = [under(row - 1), over(row)];
    const bend = (end - start) * 0.55;
    return [
      path(`M${into} ${start}V${end}`, "tr-join", state),
      path(`M${from} ${start}C${from} ${start + bend} ${into} ${end - bend} ${into} ${end}`, "tr-join", state),
    ];
  }

  // `place` gives an element's column, `go` is called with the row that was clicked
  function tree(width, { rounds, after, step, place, covers, letter, go }) {
    const at = layout(width, after[0].length, after.length);
    const svg = element("svg", {
      ...{ width, height: at.height, role: "img" },
      "aria-label": "Rows of nodes, a row for each step; lines join what combines. The tables below say the same.",
    });
    const [lines, nodes, rows] = [element("g"), element("g"), element("g")];
    const value = ({ first, b }) => (first === 0 && at.column >= 1.5 * WIDE ? `${letter} = ` : "") + format(b);

    after[0].forEach((_, k) => {
      const number = String(place(k) + 1);
      nodes.append(element("text", { x: at.x(place(k)), y: at.wide ? 16 : 12, class: "tr-place" }, number));
    });
    after.forEach((elements, r) => {
      const absorbed = new Map((r === 0 ? [] : rounds[r - 1].pairs).map(({ into, source }) => [into, source]));
      const state = r > step ? "tr-future" : r === step ? "tr-now" : "";
      elements.forEach((one, k) => {
        const x = at.x(place(k));
        const changed = absorbed.has(k);
        // what only stands by is a line: the nodes of a row are those that work in it, and all in the present one
        const standsBy = r > 0 && !changed && r !== step;
        if (changed) lines.append(...joins(at, r, at.x(place(absorbed.get(k))), x, state));
        else if (r > 0) lines.append(path(`M${x} ${at.under(r - 1)}V${at.over(r)}`, "tr-stay", state));
        if (standsBy) lines.append(path(`M${x} ${at.over(r)}V${at.under(r)}`, "tr-stay", state));
        else {
          const data = { "data-name": "b", "data-value": one.b, "data-row": r, "data-column": place(k) };
          const shown = {
            data,
            covers: covers(one),
            value: value(one),
            changed: changed && r === step,
            future: r > step,
          };
          nodes.append(node(at, x, at.y(r), one, shown));
        }
      });
      const band = { x: 0, y: at.y(r) - at.gap / 2, width, height: at.gap };
      rows.append(element("rect", { ...band, class: "tr-hit", onclick: () => go(r) }));
    });
    svg.append(lines, nodes, rows);
    return svg;
  }

  root.ssmTrees = { tree };
})(globalThis);
