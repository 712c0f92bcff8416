"use strict";

/* Step through simulated runs. What a step is, the run's own table says; without this script all steps are seen. */
for (const view of document.querySelectorAll(".simulated")) {
  const slider = view.querySelector("input");
  const output = view.querySelector("output");
  const picture = view.querySelector(".threads");
  const marks = [...view.querySelectorAll(".event")];
  const lines = [...view.querySelectorAll("pre .line")];
  const rows = [...view.querySelectorAll("tbody tr")];
  const count = rows.length;

  const show = () => {
    const done = Number(slider.value);
    const row = rows[done - 1];
    for (const mark of marks) {
      const step = Number(mark.dataset.step);
      mark.classList.toggle("later", step >= done);
      mark.classList.toggle("now", step === done - 1 && done < count && !mark.classList.contains("race"));
    }
    for (const line of lines) {
      line.classList.toggle("now", row !== undefined && line.dataset.line === row.dataset.line);
    }
    output.textContent = row ? `Step ${done} of ${count}: ${row.cells[1].textContent}.` : `Before the first of ${count} steps.`;
    slider.setAttribute("aria-valuetext", output.textContent);
    const now = view.querySelector(`.event[data-step="${done - 1}"]`);
    if (now && picture.scrollWidth > picture.clientWidth) {
      const box = now.getBoundingClientRect();
      const frame = picture.getBoundingClientRect();
      if (box.right > frame.right - 20 || box.left < frame.left + 20) {
        picture.scrollLeft += box.left - frame.left - frame.width / 2;
      }
    }
  };

  const go = (to) => {
    const now = Number(slider.value);
    slider.value = { first: 0, back: now - 1, next: now + 1, last: count }[to];
    show();
  };

  for (const button of view.querySelectorAll("button")) {
    button.addEventListener("click", () => go(button.dataset.to));
  }
  picture.addEventListener("keydown", (event) => {
    const to = { Home: "first", ArrowLeft: "back", ArrowRight: "next", End: "last" }[event.key];
    if (to) {
      event.preventDefault();
      go(to);
    }
  });
  slider.addEventListener("input", show);
  view.querySelector(".controls").hidden = false;
  show();
}
