// The scan explorer: a setting, the scan of it, and the page that shows both. The setting is all that is kept.
(function () {
  "use strict";

  const { scan } = globalThis.ssmRules;
  const { STORIES } = globalThis.ssmStories;
  const { FIELDS, COUNTS, symbolOf, toPairs, fromPairs, valueOf, setValue, resize } = globalThis.ssmSetting;
  const { slider, numberField, counter } = globalThis.ssmFields;
  const { math, steps, tables } = globalThis.ssmFormulas;
  const { format, element, button, choices, voice, address, copyLink, onWidth } = globalThis.ssmCommon;

  const FIRST_STORY = "article2";
  const RULE_NAMES = { zoh: "Zero-order hold", mamba: "Mamba’s rule", bilinear: "Bilinear" };
  const FROM_LINK = "A setting opened from a link. Choose a story to begin with another.";

  // The page holds the stories' words, so that they are there without this script; the one that is told is shown.
  function storyTeller() {
    const words = Object.keys(STORIES)
      .map((name) => [name, document.querySelector(`.story-${name}`)])
      .filter(([, told]) => told !== null);
    const linked = element("p", {}, FROM_LINK);
    const node = element("div", { class: "ex-story" }, [...words.map(([, told]) => told), linked]);
    const tell = (story) => {
      words.forEach(([name, told]) => (told.hidden = name !== story));
      linked.hidden = story !== null;
    };
    return { node, tell };
  }

  function start(root) {
    // what the page began with and the story it is of, null for a link; the setting; token t and state n in view
    let origin, story, setting, result, updateBoard;
    let [t, n] = [0, 0];

    const status = element("p", { class: "ex-voice", "aria-live": "polite" });
    const say = voice(status);
    const titles = Object.entries(STORIES).map(([name, { title }]) => [name, title]);
    const stories = choices("story", "Start from", titles, tellStory);
    const teller = storyTeller();
    const rules = choices("rule", "Rule", Object.entries(RULE_NAMES), (rule) => change(() => (setting.rule = rule)));
    const counts = {
      tokens: counter("tokens", "Tokens", (count) => reshape("tokens", count), say),
      states: counter("states", "States", (count) => reshape("states", count), say),
    };
    const states = Array.from({ length: COUNTS.states[1] }, (_, k) => [String(k + 1), String(k + 1)]);
    const shown = choices("state", "State that B, C, Ā and B̄ are shown of", states, (k) => {
      n = Number(k) - 1;
      build();
    });
    const copy = button("Copy link", () => copyLink(copy, say));
    const decay = element("div", { class: "ex-decay" });
    const board = element("div", { class: "ex-board" });
    const panel = element("div", { class: "ex-panel" });
    const numbers = element("div", { class: "ex-tables" });
    root.replaceChildren(
      stories.node,
      teller.node,
      element("div", { class: "ex-controls" }, [
        ...[rules.node, counts.tokens.node, counts.states.node, decay],
        element("div", { class: "ex-buttons" }, [button("Reset", startAgain), copy]),
      ]),
      ...[shown.node, board, panel],
      element("details", { class: "ex-details" }, [element("summary", {}, "All numbers, as tables"), numbers]),
      status,
    );

    // ---- from one setting to the next
    function begin(from, name) {
      [origin, story] = [{ rule: from.rule, A: from.A, tokens: from.tokens }, name];
      setting = structuredClone(origin);
      [t, n] = [setting.tokens.length - 1, 0];
      stories.select(name);
      teller.tell(name);
      build();
    }

    function tellStory(name) {
      address.write([["story", name]]);
      begin(STORIES[name], name);
      say(`${STORIES[name].title}. ${sentence()}`);
    }

    function startAgain() {
      address.write(story === null ? toPairs(origin) : [["story", story]]);
      begin(origin, story);
      say(`As it was. ${sentence()}`);
    }

    function change(edit) {
      edit();
      address.write(toPairs(setting));
      update();
      say(sentence());
    }

    function reshape(what, count) {
      resize(setting, what, count);
      t = Math.min(t, setting.tokens.length - 1);
      n = Math.min(n, setting.A.length - 1);
      build();
      change(() => {});
    }

    function select(at) {
      if (at === t) return;
      t = at;
      update();
    }

    const sentence = () =>
      `Token ${t + 1}, state ${n + 1}: Ā ${format(result.A_bar[t][n])}, B̄ ${format(result.B_bar[t][n])}, ` +
      `h ${format(result.h[t][n])}, y ${format(result.y[t])}.`;

    // ---- what is shown of it
    function build() {
      shown.node.hidden = setting.A.length === 1;
      shown.offer(setting.A.length);
      buildDecay();
      buildPanel();
      updateBoard = globalThis.ssmBoard.build(board, setting, n, { change, select });
      update();
    }

    function update() {
      result = scan(setting);
      rules.select(setting.rule);
      shown.select(n + 1);
      counts.tokens.update(setting.tokens.length);
      counts.states.update(setting.A.length);
      decay.querySelectorAll("input").forEach((input) => input.update());
      updateBoard(result, t);
      updatePanel();
      numbers.replaceChildren(...tables(setting, result));
    }

    function buildDecay() {
      const one = (_, k) => {
        const id = `A-${k}`;
        const read = () => valueOf(setting, "A", null, k);
        const write = (value) => setValue(setting, "A", null, k, value);
        const across = slider("A", `A of state ${k + 1}`, read, write, change);
        across.classList.add("ex-across");
        const label = element("label", { for: id }, math("A", setting.A.length > 1 ? k + 1 : ""));
        return element("div", { class: "ex-decay-one" }, [
          label,
          across,
          numberField(id, "A", read, write, change, say),
        ]);
      };
      decay.replaceChildren(...setting.A.map(one));
    }

    // the chosen token: its numbers, and the formulas with the numbers in them
    function buildPanel() {
      const field = (name) => {
        const id = `field-${name}`;
        const read = () => valueOf(setting, name, t, n);
        const write = (value) => setValue(setting, name, t, n, value);
        return element("div", { class: "ex-field" }, [
          element("label", { for: id }, [
            element("span", { "data-symbol": name }),
            element("span", { class: "ex-what" }, ` ${FIELDS[name].what}`),
          ]),
          numberField(id, name, read, write, change, say),
        ]);
      };
      panel.replaceChildren(
        element("p", { class: "ex-caption" }),
        element("div", { class: "ex-fields" }, ["x", "delta", "B", "C"].map(field)),
        element("div", { class: "ex-formulas" }),
      );
    }

    function updatePanel() {
      const many = setting.A.length > 1;
      const [caption, fields, formulas] = panel.children;
      caption.textContent = `Token ${t + 1}${many ? `, state ${n + 1}` : ""}, step by step`;
      fields.querySelectorAll("[data-symbol]").forEach((label) => {
        const { symbol } = label.dataset;
        const index = many && (symbol === "B" || symbol === "C") ? `${t + 1},${n + 1}` : t + 1;
        label.replaceChildren(math(symbolOf(symbol), index));
      });
      fields.querySelectorAll("input").forEach((input) => input.update());
      formulas.replaceChildren(...steps(setting, result, t, n));
    }

    // ---- begin, and follow the address
    function follow() {
      const named = address.read("story")?.get("story");
      const pairs = address.read("rule");
      const opened = pairs && fromPairs(pairs);
      if (Object.hasOwn(STORIES, named ?? "")) begin(STORIES[named], named);
      else if (opened) begin(opened, null);
      else if (named || pairs) say("The link holds no setting that this page can show.");
    }
    follow();
    if (!setting) begin(STORIES[FIRST_STORY], FIRST_STORY);
    addEventListener("hashchange", follow);
    onWidth(board, () => updateBoard(result, t));
  }

  const root = document.getElementById("scan-explorer");
  if (root) start(root);
})();
