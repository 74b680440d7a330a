// Python in a worker of its own: loads what the page asks for, runs cells in order.

let python = null;
let runCell = null;

// Count every byte that arrives, whoever asked for it.
function countBytes() {
  const original = self.fetch.bind(self);
  let seen = 0;
  self.fetch = async (...args) => {
    const answer = await original(...args);
    if (!answer.ok || !answer.body) return answer;
    const counter = new TransformStream({
      transform(chunk, controller) {
        seen += chunk.byteLength;
        self.postMessage({ type: "bytes", seen });
        controller.enqueue(chunk);
      },
    });
    return new Response(answer.body.pipeThrough(counter), {
      status: answer.status,
      headers: answer.headers,
    });
  };
}

async function start({ packages }) {
  countBytes();
  const { loadPyodide } = await import("./pyodide/pyodide.mjs");
  const base = new URL("./pyodide/", self.location.href).href;
  python = await loadPyodide({ indexURL: base });
  self.postMessage({ type: "python" });
  const [shim, book] = await Promise.all([
    fetch(new URL("./shim.py", self.location.href)).then((r) => r.text()),
    fetch(new URL("./llmbook.zip", self.location.href)).then((r) => r.arrayBuffer()),
  ]);
  const failures = [];
  await python.loadPackage(packages, {
    messageCallback: (text) => self.postMessage({ type: "package", text }),
    errorCallback: (text) => failures.push(text),
  });
  if (failures.length) throw new Error(failures.join("\n"));
  python.unpackArchive(book, "zip", { extractDir: "/book" });
  const module = python.toPy({ __name__: "shim" });
  python.runPython(shim, { globals: module, filename: "shim.py" });
  runCell = module.get("run");
  self.postMessage({ type: "ready" });
}

function run({ id, name, source }) {
  const send = (kind, detail, content) =>
    self.postMessage({ type: "output", id, kind, detail, content });
  const ok = runCell(source, name, send);
  self.postMessage({ type: "done", id, ok });
}

self.onmessage = async ({ data }) => {
  try {
    if (data.type === "start") await start(data);
    else run(data);
  } catch (error) {
    self.postMessage({ type: "failed", id: data.id, text: String(error.message || error) });
  }
};
