// The scan explorer's inputs: native sliders and number fields, each of which reads and writes one number.
(function (root) {
  "use strict";

  const { format, element } = globalThis.ssmCommon;
  const { FIELDS, COUNTS, symbolOf, rangeText, within } = globalThis.ssmSetting;

  // `update` brings an input to the setting; `change(edit)` makes an edit, `say` speaks of one that cannot be made.
  function slider(name, label, read, write, change) {
    const { min, max, step, value, position } = FIELDS[name].slider;
    const input = element("input", {
      ...{ type: "range", min, max, step, "aria-label": label },
      oninput: () => change(() => write(value(Number(input.value)))),
    });
    input.update = () => {
      const place = Math.min(max, Math.max(min, position(read())));
      // a number between two notches stays where it is until the slider is moved
      if (value(Number(input.value)) !== read()) input.value = place;
      const [zero, share] = [Math.max(0, -min), place - min].map((part) => part / (max - min));
      input.style.setProperty("--low", `${100 * Math.min(zero, share)}%`);
      input.style.setProperty("--high", `${100 * Math.max(zero, share)}%`);
      input.setAttribute("aria-valuetext", format(read()));
    };
    return input;
  }

  function numberField(id, name, read, write, change, say) {
    const input = element("input", {
      ...{ type: "number", id, step: "any", "data-name": name },
      oninput: () => {
        const value = input.value.trim() === "" ? NaN : Number(input.value);
        const good = within(value, FIELDS[name].range);
        input.setAttribute("aria-invalid", !good);
        if (good) change(() => write(value));
        else say(`${symbolOf(name)} must be a number from ${rangeText(name)}.`);
      },
      onblur: () => {
        input.setAttribute("aria-invalid", false);
        input.update();
      },
    });
    input.update = () => {
      if (document.activeElement !== input || Number(input.value) !== read()) input.value = read();
    };
    return input;
  }

  // how many tokens, how many states
  function counter(what, label, write, say) {
    const [min, max] = COUNTS[what];
    let last;
    const input = element("input", {
      ...{ type: "number", id: `count-${what}`, min, max, step: 1 },
      onchange: () => {
        const count = Math.round(Number(input.value));
        if (input.value !== "" && within(count, COUNTS[what])) return write(count);
        input.value = last;
        return say(`The number of ${what} must be from ${min} to ${max}.`);
      },
    });
    const node = element("div", { class: "ex-count" }, [element("label", { for: input.id }, label), input]);
    return { node, update: (count) => (input.value = last = count) };
  }

  root.ssmFields = { slider, numberField, counter };
})(globalThis);
