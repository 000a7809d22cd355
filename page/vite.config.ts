import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { defineConfig } from "vite";

/** Writes the hash of the sources beside what is built from them, so that a test sees a page that was not built anew. */
const stamp = {
  name: "stamp",
  generateBundle(this: { emitFile(file: object): void }) {
    const hash = createHash("sha256");
    const sources = readdirSync("src").sort().map((name) => `src/${name}`);
    for (const file of [...sources, "index.html", "package-lock.json"]) hash.update(readFileSync(file));
    this.emitFile({ type: "asset", fileName: "sources.sha256", source: `${hash.digest("hex")}\n` });
  },
};

// The built files ship in the wheel, so their names carry no hash: a rebuild changes contents, not the list of files.
export default defineConfig({
  base: "./",
  esbuild: { jsx: "automatic", jsxImportSource: "preact" },
  plugins: [stamp],
  build: {
    outDir: "../src/isthmus/serve/page",
    emptyOutDir: true,
    target: "es2021",
    modulePreload: false,
    rollupOptions: {
      output: { entryFileNames: "page.js", chunkFileNames: "[name].js", assetFileNames: "page[extname]" },
    },
  },
});
