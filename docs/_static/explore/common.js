// What the explorers share: numbers as text, elements, the address that keeps a setting, and a quiet voice.
(function (root) {
  "use strict";

  const SUPERSCRIPT = { "-": "⁻", 0: "⁰", 1: "¹", 2: "²", 3: "³", 4: "⁴", 5: "⁵", 6: "⁶", 7: "⁷", 8: "⁸", 9: "⁹" };
  const minus = (text) => text.replace(/-/g, "−");

  // a number to so many significant digits, without trailing zeros: 0.368, −1, 1.93·10⁻⁹
  function format(value, digits = 3) {
    if (!Number.isFinite(value)) return Number.isNaN(value) ? "not a number" : value > 0 ? "∞" : "−∞";
    if (value === 0) return "0";
    const exponent = Math.floor(Math.log10(Math.abs(Number(value.toPrecision(digits)))));
    if (exponent >= -3 && exponent < 5) return minus(String(Number(value.toPrecision(digits))));
    const [mantissa, power] = value.toExponential(digits - 1).split("e");
    const raised = [...power.replace("+", "")].map((c) => SUPERSCRIPT[c]).join("");
    return `${minus(String(Number(mantissa)))}·10${raised}`;
  }

  // the same for narrow places: two digits, or one: 0.37, 0.003, 2e−9
  function compact(value) {
    if (!Number.isFinite(value)) return format(value);
    const size = Math.abs(value);
    if (value !== 0 && (size < 0.00095 || size >= 9995)) return minus(value.toExponential(0).replace("+", ""));
    return minus(String(Number(value.toPrecision(size < 0.00995 ? 1 : 2))));
  }

  function element(tag, attributes = {}, children = []) {
    const svg = ["svg", "g", "rect", "line", "path", "circle", "text", "title"].includes(tag);
    const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else if (value === true) node.setAttribute(name, "");
      else if (value !== false && value !== undefined) node.setAttribute(name, value);
    }
    node.append(...[children].flat().filter((child) => child !== null && child !== undefined));
    return node;
  }

  // Radio buttons that look like a row of choices; each choice is [value, label].
  function choices(name, legend, options, onchange) {
    const inputs = options.map(([value]) =>
      element("input", { type: "radio", name, value, id: `${name}-${value}`, onchange: () => onchange(value) }),
    );
    const items = options.map(([value, label], k) => [inputs[k], element("label", { for: `${name}-${value}` }, label)]);
    const node = element("fieldset", { class: "ex-choices" }, [
      element("legend", {}, legend),
      element("div", { class: "ex-choices-row" }, items.flat()),
    ]);
    const select = (value) => inputs.forEach((input) => (input.checked = input.value === String(value)));
    // only the first so many can be chosen
    const offer = (count) =>
      inputs.forEach((input, k) => (input.hidden = input.nextElementSibling.hidden = k >= count));
    return { node, select, offer };
  }

  const button = (text, onclick, attributes = {}) =>
    element("button", { type: "button", class: "ex-button", onclick, ...attributes }, text);

  // a table in a box of its own, which scrolls sideways where it must
  const table = (caption, heads, rows) =>
    element("div", { class: "ex-scroll", role: "region", tabindex: 0, "aria-label": caption }, [
      element("table", {}, [
        element("caption", {}, caption),
        element("thead", {}, [
          element(
            "tr",
            {},
            heads.map((head) => element("th", { scope: "col" }, head)),
          ),
        ]),
        element("tbody", {}, rows),
      ]),
    ]);

  // One polite sentence once the hand rests, so that a drag is not read out number by number.
  function voice(node) {
    let timer;
    return (sentence) => {
      clearTimeout(timer);
      timer = setTimeout(() => (node.textContent = sentence), 700);
    };
  }

  function decoded(text) {
    try {
      return decodeURIComponent(text);
    } catch {
      return text; // a % that encodes nothing
    }
  }

  // A setting lives in the address, after #, as name=value pairs that begin with `first`.
  const pending = { timer: 0, hash: null };
  const address = {
    read(first) {
      const hash = decoded(location.hash.slice(1));
      return hash.startsWith(`${first}=`) ? new Map(hash.split("&").map((part) => part.split("="))) : null;
    },
    // only when the hand rests: browsers refuse an address that changes a hundred times in a few seconds
    write(pairs) {
      clearTimeout(pending.timer);
      pending.hash = `#${pairs.map(([name, value]) => `${name}=${value}`).join("&")}`;
      pending.timer = setTimeout(address.flush, 250);
    },
    flush() {
      clearTimeout(pending.timer);
      if (pending.hash !== null) history.replaceState(null, "", pending.hash);
      pending.hash = null;
    },
  };

  async function copyLink(button, say) {
    address.flush();
    try {
      await navigator.clipboard.writeText(location.href);
      say("Link copied.");
      button.textContent = "Copied";
    } catch {
      say("The link is in the address bar.");
      button.textContent = "It is in the address bar";
    }
    setTimeout(() => (button.textContent = "Copy link"), 1600);
  }

  // Draw again when the width changes, and only then.
  function onWidth(node, draw) {
    let width = 0;
    new ResizeObserver(() => {
      const now = Math.floor(node.clientWidth);
      if (now !== width) draw((width = now));
    }).observe(node);
  }

  root.ssmCommon = { format, compact, element, button, choices, table, voice, address, copyLink, onWidth };
})(globalThis);
