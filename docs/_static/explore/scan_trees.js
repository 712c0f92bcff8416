// The scan trees: a scan is a list of rounds, and the page stands after some of them.
(function () {
  "use strict";

  const { roundsOf, states, inOrder } = globalThis.ssmRounds;
  const { OPTIONS, START, kept, valuesOf, fromPairs } = globalThis.ssmTreeSetting;
  const { meters, pairsTable, elementsTable } = globalThis.ssmTreeTables;
  const { tree } = globalThis.ssmTrees;
  const { element, button, choices, voice, address, copyLink, onWidth } = globalThis.ssmCommon;

  const LEGENDS = { scan: "Scan", length: "Elements", way: "Direction", chunk: "Chunk", values: "Values" };
  const WORDS = {
    doubling: ({ pairs: [{ into, source }] }, side) =>
      `Each position absorbs the one ${into - source} ${into - source === 1 ? "place" : "places"} ${side} it.`,
    "up-sweep": () => "Up the tree: neighbours combine, then pairs, then fours.",
    "down-sweep": () => "Down again: a finished prefix completes the position half a block further on.",
    "inside the chunks": () => "All chunks at once, each one step after the other.",
    "along the ends": () => "The ends of the chunks, one after the other: a finished prefix meets the next chunk.",
    "into the chunks": () => "All at once: each finished end completes the chunk that follows it.",
  };
  const KEYS = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: -Infinity, End: Infinity };

  function start(root) {
    let setting = { ...START };
    let width = 0;
    let rounds, after;

    const status = element("p", { class: "ex-voice", "aria-live": "polite" });
    const say = voice(status);
    const picks = Object.fromEntries(
      Object.entries(LEGENDS).map(([name, legend]) => {
        const choose = (value) => set({ [name]: kept(name, value), ...(name === "values" ? {} : { step: 0 }) });
        return [name, choices(name, legend, Object.entries(OPTIONS[name]), choose)];
      }),
    );
    const again = button("Draw again", () => set({ seed: setting.seed + 1 }), { id: "draw-again" });
    const moves = [
      button("|◀", () => go(0), { id: "first", "aria-label": "First step" }),
      button("◀ Back", () => go(setting.step - 1), { id: "back" }),
      button("Next ▶", () => go(setting.step + 1), { id: "next" }),
      button("▶|", () => go(Infinity), { id: "last", "aria-label": "Last step" }),
    ];
    const slider = element("input", {
      ...{ type: "range", id: "step", class: "ex-across", min: 0, step: 1, "aria-label": "Step" },
      oninput: () => go(Number(slider.value)),
    });
    const reset = button("Reset", () => set(START), { id: "reset" });
    const copy = button("Copy link", () => copyLink(copy, say));
    const told = element("p", { class: "ex-story ex-told" });
    const drawing = element("div");
    const stage = element(
      "div",
      {
        ...{ class: "ex-stage", tabindex: 0, role: "group" },
        "aria-label": "The scan as a diagram; the arrow keys step through it",
        onkeydown: (event) => {
          if (!(event.key in KEYS)) return;
          event.preventDefault();
          go(setting.step + KEYS[event.key]);
        },
      },
      drawing,
    );
    const [counts, pairs, elements] = [element("div", { class: "ex-counts" }), element("div"), element("div")];
    root.replaceChildren(
      element("div", { class: "ex-controls" }, [
        ...[picks.scan.node, picks.length.node, picks.way.node, picks.chunk.node],
      ]),
      element("div", { class: "ex-controls" }, [
        ...[picks.values.node, again],
        element("div", { class: "ex-buttons" }, [reset, copy]),
      ]),
      element("div", { class: "ex-steps" }, [moves[0], moves[1], slider, moves[2], moves[3]]),
      ...[told, stage, counts, pairs],
      element("details", { class: "ex-details", open: true }, [
        element("summary", {}, "All positions after this step"),
        elements,
      ]),
      status,
    );

    // ---- from one setting to the next
    function set(changes) {
      setting = { ...setting, ...changes };
      if (setting.chunk >= setting.length) setting.chunk = setting.length / 2;
      address.write(Object.entries(setting));
      update();
      say(told.textContent);
    }

    const go = (step) => set({ step: Math.min(rounds.length, Math.max(0, step)) });

    // ---- what is shown of it
    function update() {
      const { scan, length, chunk, way, step } = setting;
      const { a, b } = valuesOf(setting);
      rounds = roundsOf(scan, length, chunk);
      after = states(inOrder(a, b, way === "reverse"), rounds);
      Object.assign(root.dataset, setting, { a: a.join(), b: b.join() });

      Object.entries(picks).forEach(([name, pick]) => pick.select(setting[name]));
      picks.chunk.node.hidden = scan !== "chunked";
      picks.chunk.offer(Math.log2(length) - 1);
      again.hidden = setting.values !== "drawn";
      slider.max = rounds.length;
      slider.value = step;
      slider.style.setProperty("--high", `${(100 * step) / rounds.length}%`);
      slider.setAttribute("aria-valuetext", `step ${step} of ${rounds.length}`);
      moves.forEach((move, k) => (move.disabled = step === (k < 2 ? 0 : rounds.length)));

      told.textContent = words();
      counts.replaceChildren(...meters(rounds, after, step));
      pairs.replaceChildren(
        ...(step === 0 ? [] : [pairsTable(rounds[step - 1].pairs, after[step - 1], after[step], at)]),
      );
      elements.replaceChildren(elementsTable(after[step], at, covers, letter()));
      draw();
    }

    function draw() {
      const place = (k) => at(k) - 1;
      if (width)
        drawing.replaceChildren(
          tree(width, { rounds, after, step: setting.step, place, covers, letter: letter(), go }),
        );
    }

    const letter = () => (setting.way === "reverse" ? "g" : "h");

    // the place in the sequence, counted from 1, of element k in the order of the scan
    const at = (k) => (setting.way === "reverse" ? setting.length - k : k + 1);

    function covers({ first, last }) {
      const [from, to] = [at(first), at(last)].sort((p, q) => p - q);
      return from === to ? String(from) : `${from}–${to}`;
    }

    function words() {
      const { step, way, length } = setting;
      const reverse = way === "reverse";
      if (step === 0) {
        const one = reverse ? "g ← a g + b, with the a of the next position" : "h ← a h + b";
        return `Before the first step. Each position holds its own step of the recurrence, ${one}.`;
      }
      const round = rounds[step - 1];
      const count = round.pairs.length;
      const finished = after[step].filter(({ first }) => first === 0).length;
      return (
        `Step ${step} of ${rounds.length}, ${round.phase}. ${WORDS[round.phase](round, reverse ? "after" : "before")} ` +
        `${count === 1 ? "1 pair combines" : `${count} pairs combine at once`}; ` +
        `${finished} of ${length} positions are finished.`
      );
    }

    // ---- begin, and follow the address
    function follow() {
      const found = address.read("scan");
      const opened = found && fromPairs(found);
      if (opened) setting = opened;
      else if (found) say("The link holds no setting that this page can show.");
      update();
    }
    follow();
    addEventListener("hashchange", follow);
    onWidth(stage, (now) => {
      width = now;
      draw();
    });
  }

  const root = document.getElementById("scan-trees");
  if (root) start(root);
})();
