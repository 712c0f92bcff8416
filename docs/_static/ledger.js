// the ledger's filter: every word typed must occur in a claim's own words
const [search, verdict, source, count] = ["search", "verdict", "source", "count"].map((name) =>
  document.getElementById(`ledger-${name}`),
);
const rows = [...document.querySelectorAll(".claim-row")];

function filter() {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  let left = 0;
  for (const row of rows) {
    const { words: own, verdict: found, sources } = row.dataset;
    row.hidden = !(
      words.every((word) => own.includes(word)) &&
      (!verdict.value || verdict.value === found) &&
      (!source.value || sources.split("|").includes(source.value))
    );
    left += !row.hidden;
  }
  for (const section of document.querySelectorAll("section[id^='ledger-']")) {
    section.hidden = ![...section.querySelectorAll(".claim-row")].some((row) => !row.hidden);
  }
  count.textContent = left === 1 ? "1 claim" : `${left} claims`;
}

for (const control of [search, verdict, source]) control.addEventListener("input", filter);
search.form.addEventListener("submit", (event) => event.preventDefault());
filter();
