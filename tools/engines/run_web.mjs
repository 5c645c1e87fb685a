// Run the models of a folder in onnxruntime-web (WebAssembly, one thread), and print outputs and times as JSON:
//     node tools/engines/run_web.mjs FOLDER NODE_MODULES
// A folder is what make_outputs.py wrote; NODE_MODULES holds onnxruntime-web.
import { readFileSync, readdirSync } from "node:fs";
import { createRequire } from "node:module";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";

const ROUNDS = 200;
const MILLISECONDS = 5000;
const [folder, modules] = process.argv.slice(2);
const home = resolve(modules, "onnxruntime-web");
const ort = await import(pathToFileURL(join(home, "dist/ort.node.min.mjs")).href);
const { version } = createRequire(import.meta.url)(join(home, "package.json"));
const ARRAYS = { float32: Float32Array, int32: Int32Array, uint8: Uint8Array, int64: BigInt64Array, bool: Uint8Array };
ort.env.wasm.numThreads = 1;
ort.env.logLevel = "fatal";

function tensors(inputs, count) {
  return Object.fromEntries(Object.entries(inputs).map(([name, { type, shape, values }]) => {
    const size = values.length / shape[0] * (count ?? shape[0]);
    const plain = values.slice(0, size).map(type === "int64" ? BigInt : Number);
    return [name, new ort.Tensor(type, ARRAYS[type].from(plain), [count ?? shape[0], ...shape.slice(1)])];
  }));
}

const median = (values) => values.sort((a, b) => a - b)[Math.floor(values.length / 2)];

async function runModel(name) {
  const inputs = JSON.parse(readFileSync(join(folder, name, "inputs.json")));
  const [feeds, single] = [tensors(inputs), tensors(inputs, 1)];
  const rows = [];
  const opened = [];
  for (const file of readdirSync(join(folder, name)).filter((each) => each.endsWith(".onnx")).sort()) {
    const row = { model: name, variant: file.replace(".onnx", "") };
    rows.push(row);
    try {
      const session = await ort.InferenceSession.create(readFileSync(join(folder, name, file)), {
        executionProviders: ["wasm"], graphOptimizationLevel: "all",
      });
      const found = await session.run(feeds);
      row.output = Array.from(found[session.outputNames[0]].data, Number);
      opened.push({ row, session, times: [] });
    } catch (error) {
      row.error = String(error).slice(0, 300);
    }
  }
  const began = performance.now();
  for (let done = 0; done < ROUNDS && (done <= 5 || performance.now() - began < MILLISECONDS); done++) {
    for (const { session, times } of opened) {
      const start = performance.now();
      await session.run(single);
      times.push(performance.now() - start);
    }
  }
  const plain = opened.find(({ row }) => row.variant === "float").times;
  for (const { row, times } of opened) {
    row.of_float = median(times.map((each, round) => each / plain[round]));
    row.ms = median([...times]);
  }
  return rows;
}

const rows = [];
for (const name of readdirSync(folder).sort()) rows.push(...await runModel(name));
console.log(JSON.stringify({ engine: `onnxruntime-web ${version}`, rows }));
