// A formula that is too wide is broken into lines where it may be, and shrinks a little to fit;
// what still scrolls can be reached by keyboard.
const SMALLEST = 0.75;
const SHRINKS = 0.9;

const apart = (text) => text.split(/(?<=\s)(?=\S)/).map((word) => `\\text{${word}}`).join("");

// where a line may end, outside of all braces: after a wide space or a spaced comma, and before a word
function pieces(formula) {
  const tex = formula.replace(/(?<![_^]\s*)\\text\{([^{}\\$]*)\}/g, (_, text) => apart(text));
  const found = [];
  let [depth, start] = [0, 0];
  const cut = (at) => {
    if (depth === 0 && at > start) found.push(tex.slice(start, (start = at)));
  };
  for (const { 0: token, index } of tex.matchAll(
    /\\(?:left|right|begin|end)\b|\\q?quad\b|[,;:]\s*\\ |\\text\{|\\.|[{}]/gs,
  )) {
    if (/quad$|^[,;:]/.test(token)) cut(index + token.length);
    if (token === "\\text{" && tex[index - 1] !== "(" && !/[,;.:)]/.test(tex[index + token.length])) cut(index);
    if (/^(\{|\\text\{|\\left|\\begin)$/.test(token)) depth += 1;
    if (/^(\}|\\right|\\end)$/.test(token)) depth -= 1;
  }
  return [...found, tex.slice(start)];
}

const signs = (tex) =>
  tex.replace(/\\(?:text|mathrm|operatorname|t?frac)\b|\\[,!]|[{}^_]/g, "").replace(/\\[a-z]+/gi, "x").length;

// the formula in lines of as many signs as there is room for; as it is where it has no place to break
function lines(tex, share) {
  const room = signs(tex) * share;
  const found = [""];
  for (const piece of pieces(tex)) {
    if (found.at(-1) && signs(found.at(-1) + piece) > room) found.push("");
    found[found.length - 1] += piece;
  }
  const ends = found.map((line) => line.replace(/(\\q?quad|\\ |\s|\\text\{\s*\})+$/, ""));
  return ends.length > 1 ? `\\begin{gathered}${ends.join("\\\\")}\\end{gathered}` : tex;
}

const share = (math) => math.clientWidth / math.scrollWidth;

const texOf = (math) => window.MathJax?.startup?.document?.getMathItemsWithin(math)[0]?.math;

async function fit() {
  const all = [...document.querySelectorAll("div.math")];
  const wide = all.filter((math) => share(math) < SHRINKS && !math.dataset.lines && texOf(math));
  const texts = wide.map((math) => `\\[${lines(texOf(math), share(math))}\\]`);
  if (wide.length) {
    window.MathJax.typesetClear(wide);
    wide.forEach((math, k) => {
      math.textContent = texts[k];
      math.dataset.lines = "broken";
    });
    await window.MathJax.typesetPromise(wide);
  }
  const shares = all.map(share); // all read before any is changed: one layout, not hundreds
  all.forEach((math, k) => {
    if (shares[k] < 1) math.style.fontSize = `${Math.max(SMALLEST, shares[k] * 0.99) * 100}%`;
  });
}

function reach() {
  for (const box of document.querySelectorAll("div.math, .scrolls, .pst-scrollable-table-container, pre, p, .cell_output .output")) {
    const style = getComputedStyle(box);
    if (["auto", "scroll"].includes(style.overflowX) && box.scrollWidth > box.clientWidth) box.tabIndex = 0;
  }
}

// the theme's buttons that unfold the table of contents have no name
for (const summary of document.querySelectorAll(".bd-sidebar-primary summary")) {
  summary.setAttribute("aria-label", `Pages of ${summary.closest("li").querySelector("a").textContent.trim()}`);
}

window.addEventListener("load", async () => {
  await window.MathJax?.startup?.promise;
  const both = async () => (await fit(), reach());
  both();
  window.addEventListener("resize", reach);
  document.addEventListener("toggle", both, true);
});
