"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const cards = [...document.querySelectorAll(".card")];
  const status = document.getElementById("status");
  const decisions = new Map(); // path → {action, label}, shared by all cards of a picture
  let saved = true;
  const titleOf = (name) => data.titles[name] ?? name;
  const keyOf = (card) => `${card.dataset.path}\n${card.dataset.hash}`;

  for (const card of cards) {
    const image = card.querySelector("img");
    if (image) {
      const sharpen = () => image.classList.toggle("small", Math.max(image.naturalWidth, image.naturalHeight) < 100);
      if (image.complete) sharpen(); else image.addEventListener("load", sharpen);
    }
  }

  function wordsFor(card, decision) {
    if (!decision) return "undecided";
    if (decision.action === "relabel") return `✎ ${titleOf(decision.label)}`;
    if (data.saves === "manifest") return "✕ passed over";
    return decision.action === "keep" ? "✓ keep" : "✕ exclude";
  }

  function show(path) {
    for (const card of cards.filter((one) => keyOf(one) === path)) {
      const decision = decisions.get(path);
      if (decision) card.dataset.decision = decision.action; else delete card.dataset.decision;
      card.querySelector(".decision").textContent = wordsFor(card, decision);
      for (const button of card.querySelectorAll("[data-do]")) {
        const suggested = button.dataset.do === (data.saves === "manifest" ? "keep" : "accept")
          && decision?.action === "relabel" && decision.label === card.dataset.suggested;
        button.setAttribute("aria-pressed", String(suggested || decision?.action === button.dataset.do));
      }
      card.querySelector("select").value = decision?.action === "relabel" ? decision.label : "";
    }
    status.textContent = `${decisions.size} decided, not saved yet`;
    saved = false;
  }

  function decide(card, action, label = "") {
    if (action === "accept" || (action === "keep" && data.saves === "manifest")) {
      if (!card.dataset.suggested) return;
      action = "relabel";
      label = card.dataset.suggested;
    }
    if (action === "relabel" && data.saves === "corrections" && label === card.dataset.label) action = "keep";
    if (action) decisions.set(keyOf(card), { action, label }); else decisions.delete(keyOf(card));
    show(keyOf(card));
  }

  const cell = (text) => (/[",;\r\n]|^\s|\s$/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const line = (cells) => cells.map(cell).join(",") + "\n";

  function manifest() {
    let text = line(["path", "label"]);
    for (const card of cards) {
      const decision = decisions.get(keyOf(card));
      if (decision?.action === "relabel") text += line([card.dataset.path, decision.label]);
    }
    return text;
  }

  // A picture that is kept is written as a relabel to its own label: it was looked at, and found right.
  function corrections() {
    const lines = new Map(data.earlier.map((one) => [`${one.path}\n${one.hash}`, one]));
    for (const card of cards) {
      const decision = decisions.get(keyOf(card));
      if (!decision) continue;
      const { path, hash } = card.dataset;
      // an earlier line may name the same picture by more or less of its path
      for (const [key, one] of lines) {
        if (one.hash === hash && (`/${path}`.endsWith(`/${one.path}`) || `/${one.path}`.endsWith(`/${path}`))) lines.delete(key);
      }
      const label = decision.action === "exclude" ? "" : decision.action === "keep" ? card.dataset.label : decision.label;
      lines.set(keyOf(card), {
        path, hash, label,
        action: decision.action === "exclude" ? "exclude" : "relabel",
        note: decision.action === "keep" ? "looked at: right" : "",
      });
    }
    const columns = ["path", "action", "label", "note", "hash"];
    return line(columns) + [...lines.values()].map((one) => line(columns.map((column) => one[column]))).join("");
  }

  function save() {
    const text = data.saves === "manifest" ? manifest() : corrections();
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "text/csv;charset=utf-8" }));
    link.download = data.file;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    status.textContent = `${decisions.size} decided, saved as ${data.file}`;
    saved = true;
  }

  // The nearest card above or below, by where it stands: columns differ with the width of the window.
  function vertical(card, direction) {
    const from = card.getBoundingClientRect();
    let best = null, least = Infinity;
    for (const other of cards) {
      const to = other.getBoundingClientRect();
      const down = direction * (to.top - from.top);
      if (down < from.height / 2) continue;
      const distance = 4 * down + Math.abs(to.left - from.left);
      if (distance < least) { best = other; least = distance; }
    }
    return best;
  }

  const next = (card, step) => cards[cards.indexOf(card) + step];
  const move = (card) => { if (card) { card.focus(); card.scrollIntoView({ block: "nearest" }); } };

  document.getElementById("save").addEventListener("click", save);
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-do]");
    if (!button) return;
    const pressed = button.getAttribute("aria-pressed") === "true";
    decide(button.closest(".card"), pressed ? "" : button.dataset.do);
  });
  document.addEventListener("change", (event) => {
    const card = event.target.closest(".card");
    if (card) decide(card, event.target.value ? "relabel" : "", event.target.value);
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("select")) return;
    if (event.key === "s") { save(); return; }
    const card = event.target.closest(".card");
    if (!card) {
      if (event.key === "ArrowRight" || event.key === "ArrowDown") { if (event.target === document.body) { move(cards[0]); event.preventDefault(); } }
      return;
    }
    const number = Number(event.key);
    if (event.key === "ArrowRight") move(next(card, 1));
    else if (event.key === "ArrowLeft") move(next(card, -1));
    else if (event.key === "ArrowDown") move(vertical(card, 1));
    else if (event.key === "ArrowUp") move(vertical(card, -1));
    else if (event.key === "k") { decide(card, "keep"); move(next(card, 1)); }
    else if (event.key === "e") { decide(card, "exclude"); move(next(card, 1)); }
    else if (event.key === "a") { if (card.dataset.suggested) { decide(card, "accept"); move(next(card, 1)); } }
    else if (event.key === "u") decide(card, "");
    else if (event.key === "r") card.querySelector("select").focus();
    else if (number >= 1 && number <= Math.min(9, data.classes.length)) {
      decide(card, "relabel", data.classes[number - 1]);
      move(next(card, 1));
    } else return;
    event.preventDefault();
  });
  window.addEventListener("beforeunload", (event) => { if (!saved) event.preventDefault(); });
})();
