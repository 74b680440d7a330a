// Conveniences for a reader. Everything works without them, and nothing leaves the browser.
(() => {
  "use strict";
  const root = document.documentElement.dataset.content_root || "./";
  const base = new URL(root, location.href);
  const page = decodeURI(location.href.slice(base.href.length).split(/[?#]/)[0]).replace(/\.html$/, "");

  function make(tag, attributes = {}, ...children) {
    const node = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) {
      if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
      else if (value !== false && value != null) node.setAttribute(key, value);
    }
    node.append(...children);
    return node;
  }

  const loaded = {};
  function load(name, variable) {
    loaded[name] ??= new Promise((resolve, reject) => {
      const script = make("script", { src: new URL(`_static/${name}`, base).href });
      script.onload = () => resolve(window[variable]);
      script.onerror = () => reject(new Error(`${name} is missing`));
      document.head.append(script);
    });
    return loaded[name];
  }

  // --- Progress: which chapters were read, which exercises are done ------------------

  const KEY = "book-progress";
  function read() {
    try {
      const found = JSON.parse(localStorage.getItem(KEY));
      return { read: found?.read ?? {}, exercises: found?.exercises ?? {} };
    } catch {
      return { read: {}, exercises: {} };
    }
  }
  function change(edit) {
    const state = read();
    edit(state);
    try {
      localStorage.setItem(KEY, JSON.stringify(state));
    } catch { /* a private window: nothing is remembered */ }
    document.dispatchEvent(new CustomEvent("book-progress"));
  }
  const today = () => new Date().toISOString().slice(0, 10);

  function toggle(kind, id, label) {
    const box = make("input", { type: "checkbox" });
    const show = () => { box.checked = id in read()[kind]; };
    box.addEventListener("change", () => change((state) => {
      if (box.checked) state[kind][id] = today();
      else delete state[kind][id];
    }));
    document.addEventListener("book-progress", show);
    show();
    return make("label", { class: `book-done book-done-${kind}` }, box, ` ${label}`);
  }

  function exercises() {
    for (const box of document.querySelectorAll("div.exercise[id^='ex-']")) {
      const title = box.querySelector(".admonition-title");
      const link = make("a", { class: "headerlink", href: `#${box.id}`, title: "Link to this exercise" }, "#");
      title?.append(link);
      box.append(toggle("exercises", box.id, "done"));
    }
    // A grader that passes in the page ticks its exercise.
    document.addEventListener("book-graded", ({ detail }) => {
      const id = `ex-${detail.replaceAll("_", "-")}`;
      if (document.getElementById(id)) change((state) => { state.exercises[id] ??= today(); });
    });
  }

  function chapterEnd() {
    const article = document.querySelector("article.bd-article");
    if (!article || !/^chapters\/\d_\w+\/\d\d_/.test(page)) return;
    article.append(make("p", { class: "book-read" }, toggle("read", page, "I have read this chapter")));
  }

  async function landing() {
    const box = document.querySelector(".book-progress");
    if (!box) return;
    const chapters = await load("chapters.js", "bookChapters");
    const file = make("input", { type: "file", accept: "application/json,.json", hidden: "" });
    const said = make("span", { role: "status", class: "book-said" });
    const counts = make("p");
    const list = make("ul");
    file.addEventListener("change", async () => {
      try {
        const found = JSON.parse(await file.files[0].text());
        const dates = (x) => x && typeof x === "object" && Object.values(x).every((d) => /^\d{4}-\d\d-\d\d$/.test(d));
        if (!dates(found.read) || !dates(found.exercises)) throw new Error("it does not hold this book's progress");
        change((state) => {
          Object.assign(state.read, found.read);
          Object.assign(state.exercises, found.exercises);
        });
        said.textContent = "imported";
      } catch (error) {
        said.textContent = `nothing imported: ${error.message}`;
      }
      file.value = "";
    });
    const save = () => {
      const text = JSON.stringify({ book: "Proved by Running", ...read() }, null, 1);
      const link = make("a", {
        href: URL.createObjectURL(new Blob([text], { type: "application/json" })),
        download: "proved-by-running-progress.json",
      });
      link.click();
      URL.revokeObjectURL(link.href);
    };
    const forget = () => {
      change((state) => { state.read = {}; state.exercises = {}; });
      said.textContent = "forgotten";
    };
    const button = (label, onclick) => make("button", { type: "button", class: "book-button", onclick }, label);
    box.append(
      make("h2", {}, "Your progress"), counts, list,
      make("p", { class: "book-progress-tools" },
        button("Export", save), button("Import", () => file.click()), button("Forget", forget), file, said),
      make("p", { class: "book-quiet" }, "Kept in this browser only."),
    );
    const show = () => {
      const state = read();
      const done = chapters.filter((c) => c.page in state.read).length;
      const all = chapters.flatMap((c) => c.exercises);
      const solved = all.filter((id) => id in state.exercises).length;
      counts.textContent = `${done} of ${chapters.length} chapters read, ${solved} of ${all.length} exercises done.`;
      list.replaceChildren(...chapters
        .filter((c) => c.page in state.read || c.exercises.some((id) => id in state.exercises))
        .map((c) => {
          const n = c.exercises.filter((id) => id in state.exercises).length;
          const words = `${c.page in state.read ? "read" : "begun"}, ${n} of ${c.exercises.length} exercises`;
          return make("li", {}, make("a", { href: new URL(`${c.page}.html`, base).href }, `${c.number} ${c.title}`), `: ${words}`);
        }));
      box.hidden = false;
    };
    document.addEventListener("book-progress", show);
    show();
  }

  // --- Anchors to copy ----------------------------------------------------------------

  function anchors() {
    document.addEventListener("click", async (event) => {
      const link = event.target.closest?.("a.headerlink");
      if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
      const address = new URL(link.getAttribute("href"), location.href).href;
      let word = "address in the bar";
      try {
        await navigator.clipboard.writeText(address);
        word = "link copied";
      } catch { /* no clipboard: the browser follows the link, which shows the address */ }
      const note = make("span", { class: "book-copied", role: "status" }, word);
      link.after(note);
      setTimeout(() => note.remove(), 1500);
    });
  }

  // --- Glossary -----------------------------------------------------------------------

  function glossary() {
    let shown = null;
    let wanted = null;
    const hide = () => {
      wanted = null;
      shown?.note.remove();
      shown?.link.removeAttribute("aria-describedby");
      shown = null;
    };
    const show = async (link) => {
      if (shown?.link === link) return;
      hide();
      wanted = link;
      const entries = await load("glossary.js", "bookGlossary");
      if (wanted !== link) return;
      const entry = entries[decodeURIComponent(link.hash.slice(1))];
      if (!entry) return;
      const names = make("strong");
      entry.terms.forEach((term, i) => {
        if (i) names.append(" · ");
        names.append(make("span", /[\u3400-\u9fff]/.test(term) ? { lang: "zh" } : {}, term));
      });
      const note = make("span", { class: "book-definition", role: "tooltip", id: "book-definition" }, names, make("span", {}, entry.text));
      document.body.append(note);
      const place = link.getBoundingClientRect();
      const width = note.offsetWidth;
      const left = Math.max(8, Math.min(place.left, document.documentElement.clientWidth - width - 8));
      const below = place.bottom + note.offsetHeight + 12 < innerHeight;
      note.style.left = `${left + scrollX}px`;
      note.style.top = `${(below ? place.bottom + 6 : place.top - note.offsetHeight - 6) + scrollY}px`;
      link.setAttribute("aria-describedby", note.id);
      shown = { link, note };
      if (entry.text.includes("\\(")) window.MathJax?.typesetPromise?.([note]);
    };
    const find = (event) => event.target.closest?.("a[href*='glossary.html#term-']");
    document.addEventListener("pointerover", (event) => {
      const link = find(event);
      if (link && event.pointerType === "mouse") show(link);
      else if (shown && !event.target.closest?.(".book-definition")) hide();
    });
    document.addEventListener("focusin", (event) => {
      const link = find(event);
      if (link) show(link);
      else hide();
    });
    document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
  }

  // The theme's labels say less than what stands on the buttons: let the text be the name.
  for (const button of document.querySelectorAll("button.search-button-field, button.theme-switch-button")) button.removeAttribute("aria-label");

  // A formula wider than the page scrolls: the keyboard must reach it.
  const reachable = () => {
    for (const formula of document.querySelectorAll("mjx-container[display='true']")) {
      if (formula.scrollWidth > formula.clientWidth) formula.tabIndex = 0;
      else formula.removeAttribute("tabindex");
    }
  };
  addEventListener("load", () => {
    window.MathJax?.startup?.promise?.then(reachable);
    addEventListener("resize", reachable);
  });

  exercises();
  chapterEnd();
  anchors();
  glossary();
  landing();
})();
