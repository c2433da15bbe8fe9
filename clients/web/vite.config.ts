import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vite";

// Built into the control plane's package, which serves it. Nothing may become a `data:` URL or inline script: the page's policy
// (shell/web_pages.py) allows files of its own only.
export default defineConfig({
  plugins: [svelte()],
  base: "/",
  build: {
    outDir: "../../controlplane/ccr_control/webui",
    emptyOutDir: true,
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    target: "es2022",
    reportCompressedSize: false,
  },
});
