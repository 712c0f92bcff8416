// Wide formulas in a claim's box shrink a little to fit; what still scrolls can be reached by keyboard.
const SMALLEST = 0.75;

function fit() {
  for (const math of document.querySelectorAll(".tag_claim div.math, .claim-row div.math")) {
    const share = math.clientWidth / math.scrollWidth;
    if (share < 1) math.style.fontSize = `${Math.max(SMALLEST, share * 0.99) * 100}%`;
  }
}

function reach() {
  for (const box of document.querySelectorAll("div.math, .scrolls, .pst-scrollable-table-container, pre, .cell_output .output")) {
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
  const both = () => (fit(), reach());
  both();
  window.addEventListener("resize", reach);
  document.addEventListener("toggle", both, true);
});
