// Edit and run the cells of a chapter in the page. Nothing is loaded before a click.
const info = JSON.parse(document.getElementById("live-cells").textContent);
const root = new URL(info.root, location.href);
const page = location.pathname.split("/").slice(-2).join("/").replace(/\.html$/, "");

function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value === true) node.setAttribute(key, "");
    else if (value !== false && value != null) node.setAttribute(key, value);
  }
  node.append(...children);
  return node;
}

function hash(text) {
  let h = 5381;
  for (const c of text) h = ((h * 33) ^ c.codePointAt(0)) >>> 0;
  return h.toString(36);
}

// --- Edits, kept in this browser --------------------------------------------------

const store = {
  key: (cell) => `book-edit:${page}:${hash(cell.original)}:${cell.index}`,
  read(cell) {
    try { return localStorage.getItem(this.key(cell)); } catch { return null; }
  },
  write(cell, text) {
    try {
      if (text === cell.original) localStorage.removeItem(this.key(cell));
      else localStorage.setItem(this.key(cell), text);
    } catch { /* a private window: the edit lives as long as the page */ }
  },
};

// --- Python -----------------------------------------------------------------------

class Engine {
  constructor() {
    this.worker = null;
    this.loading = null;
    this.waiting = new Map();
    this.count = 0;
  }

  load(report) {
    this.loading ??= this.start(report).catch((error) => {
      this.stop();
      throw error;
    });
    return this.loading;
  }

  async start(report) {
    const answer = await fetch(new URL("manifest.json", root));
    if (!answer.ok) throw new Error(`manifest.json: ${answer.status}`);
    const manifest = await answer.json();
    const names = new Set();
    const add = (name) => {
      if (names.has(name)) return;
      names.add(name);
      manifest.packages[name].depends.forEach(add);
    };
    info.packages.forEach(add);
    const total = [...names].reduce((n, x) => n + manifest.packages[x].bytes, manifest.runtime);
    const state = { seen: 0, total, what: "Python" };
    report(state);
    this.worker = new Worker(new URL("worker.js", root), { type: "module" });
    await new Promise((resolve, reject) => {
      this.abort = reject;
      this.worker.onerror = (event) => reject(new Error(event.message || "the worker did not start"));
      this.worker.onmessage = ({ data }) => {
        if (data.type === "bytes") state.seen = Math.min(data.seen, total);
        if (data.type === "python") state.what = info.packages.join(", ");
        if (data.type === "ready") resolve();
        if (data.type === "failed") reject(new Error(data.text));
        report(state);
      };
      this.worker.postMessage({ type: "start", packages: info.packages });
    });
    this.abort = null;
    this.worker.onmessage = ({ data }) => this.hear(data);
  }

  hear(data) {
    const task = this.waiting.get(data.id);
    if (!task) return;
    if (data.type === "output") task.output(data);
    else {
      this.waiting.delete(data.id);
      if (data.type === "failed") task.reject(new Error(data.text));
      else task.resolve(data.ok);
    }
  }

  run(name, source, output) {
    const id = ++this.count;
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { output, resolve, reject });
      this.worker.postMessage({ type: "run", id, name, source });
    });
  }

  stop() {
    this.worker?.terminate();
    this.worker = this.loading = null;
    this.abort?.(new Stopped());
    this.abort = null;
    for (const task of this.waiting.values()) task.reject(new Stopped());
    this.waiting.clear();
  }
}

class Stopped extends Error {
  constructor() {
    super("stopped");
  }
}

const engine = new Engine();

// --- One cell ---------------------------------------------------------------------

class Cell {
  constructor(node, index, { drift, raises }) {
    this.node = node;
    this.drift = drift; // its random numbers differ from the printed ones
    this.raises = raises; // the printed output is an error, too
    this.index = index;
    this.input = node.querySelector(".cell_input");
    this.pre = this.input.querySelector("pre");
    this.stored = node.querySelector(":scope > .cell_output, :scope > details .cell_output");
    this.original = this.pre.textContent.replace(/\n$/, "");
    this.text = store.read(this) ?? this.original;
    this.ran = false;
    this.editor = null;
    this.shown = null;
    this.build();
  }

  get edited() {
    return this.text !== this.original;
  }

  button(label, action, options = {}) {
    return element("button", { type: "button", class: "live-button", onclick: action, ...options }, label);
  }

  build() {
    this.open = this.button("Edit & run", () => this.start());
    this.runButton = this.button("Run", () => this.run(), { title: "Shift+Enter", hidden: true });
    this.above = this.button("Run all above", () => runAbove(this), { hidden: true });
    this.stopButton = this.button("Stop", () => stop(), { hidden: true });
    this.reset = this.button("Original", () => this.restore(), { hidden: true });
    this.status = element("span", { class: "live-status", role: "status" });
    this.progress = element("progress", { class: "live-progress", max: 1, value: 0, hidden: true, "aria-label": "Loading Python" });
    this.bar = element(
      "div",
      { class: "live-bar", role: "group", "aria-label": `Code cell ${this.index + 1}` },
      this.open, this.runButton, this.above, this.stopButton, this.reset, this.progress, this.status,
    );
    this.input.append(this.bar);
    if (this.edited) this.say("you edited this cell earlier");
  }

  say(text, bad = false) {
    this.status.textContent = text;
    this.status.classList.toggle("live-bad", bad);
  }

  async openEditor() {
    if (this.editor) return;
    const { makeEditor } = await import(new URL("editor.js", root).href);
    // The theme listens for "/" on the whole page; what is typed here is code.
    const parent = element("div", { class: "live-editor", onkeydown: (event) => event.stopPropagation() });
    this.editor = makeEditor({
      parent,
      text: this.text,
      label: `Python code of cell ${this.index + 1}. Shift+Enter runs it.`,
      run: () => this.run(),
      changed: (text) => {
        this.text = text;
        store.write(this, text);
        // What was computed from the old text is out of date.
        for (const cell of cells.slice(cells.indexOf(this))) cell.ran = false;
        this.reset.hidden = !this.edited && !this.shown;
      },
    });
    this.pre.closest("[class*=highlight-]").hidden = true;
    this.input.insertBefore(parent, this.bar);
    this.open.hidden = true;
    this.runButton.hidden = this.above.hidden = false;
    this.reset.hidden = !this.edited;
  }

  async start() {
    if (location.protocol === "file:") {
      this.say("A file cannot run Python. Serve the site: make read, then open the address it prints.", true);
      return;
    }
    try {
      await this.openEditor();
    } catch (error) {
      this.say(`The editor did not load: ${error.message}. Press again to retry.`, true);
      return;
    }
    this.editor.focus();
    await this.run();
  }

  async run() {
    await enqueue(async () => {
      await prepare(this);
      for (const cell of cells.slice(0, cells.indexOf(this))) {
        if (!cell.ran && !(await cell.execute(this))) return;
      }
      await this.execute(this);
    }, this);
  }

  // Execute and show; cells that run only because a later one needs them stay as printed.
  // Returns whether what follows may run: an error that the page prints too is expected.
  async execute(asked) {
    const quiet = asked !== this && !this.edited;
    const out = new Output(this);
    const number = this.index + 1;
    asked.say(asked === this ? "running" : `running cell ${number} above`);
    busy(asked, true);
    const ok = await engine.run(`cell ${number}`, this.text, (data) => out.add(data));
    const failed = !ok && !this.raises;
    if (!quiet || failed) out.show();
    this.ran = true;
    if (ok) this.tick();
    if (asked !== this) {
      if (failed) asked.say(`cell ${number} above raised an error, shown there; this cell did not run`, true);
      return !failed;
    }
    const note = this.drift
      ? "done; random numbers differ from the printed ones, because a cell above cannot run here"
      : "done";
    this.say(ok ? note : "this cell raised an error", !ok);
    return !failed;
  }

  // A graded exercise that passes with the reader's own code counts as done.
  tick() {
    const graded = this.edited && this.text.match(/grade\("([\w-]+)"/);
    if (graded && this.shown?.textContent.includes(`${graded[1]}: all `)) {
      document.dispatchEvent(new CustomEvent("book-graded", { detail: graded[1] }));
    }
  }

  restore() {
    this.text = this.original;
    store.write(this, this.text);
    this.editor?.dispatch({ changes: { from: 0, to: this.editor.state.doc.length, insert: this.text } });
    this.shown?.remove();
    this.shown = null;
    if (this.stored) this.stored.hidden = false;
    this.reset.hidden = true;
    this.ran = false;
    this.say("the original cell and output");
  }
}

class Output {
  constructor(cell) {
    this.cell = cell;
    this.box = element("div", { class: "cell_output docutils container live-output", "data-live-output": "" });
    this.last = null;
  }

  add({ kind, detail, content }) {
    if (kind === "stream" || kind === "text") {
      const name = kind === "stream" ? detail : "text";
      if (!this.last || this.last.dataset.kind !== name || kind === "text") {
        this.last = element("pre", { "data-kind": name });
        const frame = element("div", { class: `output ${name === "stderr" ? "stderr" : "stream"}` },
          element("div", { class: "highlight" }, this.last));
        this.box.append(frame);
      }
      this.last.append(content);
      return;
    }
    this.last = null;
    if (kind === "image") {
      const alt = this.cell.node.querySelector("img")?.alt || "Figure drawn by this cell";
      this.box.append(element("img", { src: `data:image/png;base64,${content}`, alt }));
    } else if (kind === "html") {
      const frame = element("div", { class: "output text_html" });
      frame.innerHTML = content;
      // innerHTML runs no script; a slider's own script has to.
      for (const old of frame.querySelectorAll("script")) {
        const script = document.createElement("script");
        script.textContent = old.textContent;
        old.replaceWith(script);
      }
      this.box.append(frame);
    } else if (kind === "error") {
      const lines = content.trimEnd().split("\n");
      this.box.append(
        element("div", { class: "live-error", role: "alert" },
          element("strong", {}, lines.at(-1)),
          element("details", {}, element("summary", {}, "Where"), element("pre", {}, content))),
      );
    }
  }

  show() {
    const { cell } = this;
    cell.shown?.remove();
    if (cell.stored) {
      const caption = cell.stored.querySelector("figcaption");
      if (caption && this.box.querySelector("img")) {
        const copy = caption.cloneNode(true);
        copy.removeAttribute("id");
        this.box.append(element("figure", { class: "live-caption" }, copy));
      }
      cell.stored.hidden = true;
    }
    cell.node.append(this.box);
    cell.shown = this.box;
    cell.reset.hidden = false;
  }
}

// --- The page ---------------------------------------------------------------------

let queue = Promise.resolve();
let running = null;

function busy(cell, on) {
  running = on ? cell : null;
  for (const other of cells) {
    other.runButton.disabled = other.above.disabled = on;
    other.stopButton.hidden = !(on && other === cell);
  }
}

function enqueue(work, cell) {
  queue = queue.then(async () => {
    try {
      await work();
    } catch (error) {
      if (!(error instanceof Stopped)) cell.say(`Python did not answer: ${error.message}. Press Run to try again.`, true);
    } finally {
      cell.progress.hidden = true;
      busy(cell, false);
    }
  });
  return queue;
}

async function prepare(cell) {
  busy(cell, true);
  await engine.load(({ seen, total, what }) => {
    cell.progress.hidden = false;
    cell.progress.value = seen / total;
    const mb = (n) => (n / 1e6).toFixed(0);
    cell.say(`loading ${what}: ${mb(seen)} of ${mb(total)} MB`);
  });
  cell.progress.hidden = true;
}

function runAbove(cell) {
  return enqueue(async () => {
    await prepare(cell);
    for (const other of cells.slice(0, cells.indexOf(cell))) {
      other.ran = false;
      if (!(await other.execute(cell))) return;
    }
    cell.say("all cells above have run");
  }, cell);
}

function stop() {
  const cell = running;
  engine.stop();
  for (const other of cells) other.ran = false;
  cell?.say("stopped; the next run starts Python again, from the top");
}

async function download(status) {
  const depth = info.root.split("../").length - 1;
  const path = location.pathname.split("/").slice(-depth - 1).join("/").replace(/\.html$/, ".ipynb");
  const answer = await fetch(new URL(`../../_sources/${path}`, root));
  if (!answer.ok) {
    status.textContent = `the notebook is not there (${answer.status})`;
    return;
  }
  const notebook = await answer.json();
  const code = notebook.cells.filter((cell) => cell.cell_type === "code");
  for (const cell of cells.filter((c) => c.edited)) {
    code[cell.index].source = cell.text.split(/(?<=\n)/);
    code[cell.index].outputs = [];
    code[cell.index].execution_count = null;
  }
  const link = element("a", {
    href: URL.createObjectURL(new Blob([JSON.stringify(notebook, null, 1)], { type: "application/x-ipynb+json" })),
    download: path.split("/").at(-1),
  });
  link.click();
  URL.revokeObjectURL(link.href);
  status.textContent = "downloaded";
}

const nodes = [...document.querySelectorAll("div.cell")];
const cells = [];
nodes.forEach((node, index) => {
  const judged = info.cells[index];
  if (judged?.live) cells.push(new Cell(node, index, judged));
  else if (judged) {
    node.querySelector(".cell_input")?.append(
      element("p", { class: "live-why" }, `Needs ${judged.why}: runs in JupyterLab, not in the page.`));
  }
});

const status = element("span", { class: "live-status", role: "status" });
const panel = element(
  "div", { class: "live-panel", role: "group", "aria-label": "This page as a notebook" },
  element("span", {}, `${cells.length} of ${nodes.length} cells run in this page.`),
  element("button", { type: "button", class: "live-button", onclick: () => download(status) }, "Download with my edits"),
  element("button", {
    type: "button", class: "live-button",
    onclick: () => {
      cells.filter((cell) => cell.edited || cell.shown).forEach((cell) => cell.restore());
      status.textContent = "all cells are as printed";
    },
  }, "Reset my edits"),
  status,
);
(document.querySelector(".chapter-box") ?? nodes[0]).after(panel);
window.bookLive = { cells, engine };
