// Packs the npm packages: `agent-wormhole`, and `@agent-wormhole/PLATFORM` for each binary that is given, which the first one
// names as an optional dependency, so that npm installs the one of the machine and downloads nothing afterwards.
//
//   node pack.mjs OUT linux-x64=BINARY [linux-arm64=BINARY]
import { execFileSync } from "node:child_process";
import { chmodSync, copyFileSync, cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";

const here = import.meta.dirname ?? new URL(".", import.meta.url).pathname;
const root = resolve(here, "../..");
const [out, ...binaries] = process.argv.slice(2);
if (out === undefined || binaries.length === 0) {
  process.stderr.write("usage: node pack.mjs OUT PLATFORM=BINARY...\n");
  process.exit(2);
}
const { bin, files, engines, ...shared } = JSON.parse(readFileSync(join(here, "package.json"), "utf8"));
const work = mkdtempSync(join(tmpdir(), "agent-wormhole-npm-"));

/** A directory with what every package has. */
function lay(name, description, readme) {
  const place = join(work, name.replace("/", "-"));
  mkdirSync(join(place, "bin"), { recursive: true });
  copyFileSync(join(root, "LICENSE"), join(place, "LICENSE"));
  writeFileSync(join(place, "README.md"), readme);
  return { place, manifest: { ...shared, name, description, files } };
}

function pack({ place, manifest }) {
  writeFileSync(join(place, "package.json"), JSON.stringify(manifest, null, 2) + "\n");
  execFileSync("npm", ["pack", "--silent", "--pack-destination", resolve(out)], { cwd: place, stdio: "inherit" });
}

/** The package of a platform; its binary is static, so it has no need to ask for a libc. */
function packPlatform(platform, binary) {
  const name = `@${shared.name}/${platform}`;
  const [os, cpu] = platform.split("-");
  const text = `The ${platform} binary of ${shared.name}`;
  const laid = lay(name, text, `# ${name}\n\n${text}: install that package, which chooses this one.\n`);
  Object.assign(laid.manifest, { os: [os], cpu: [cpu], preferUnplugged: true });
  copyFileSync(binary, join(laid.place, "bin", shared.name));
  chmodSync(join(laid.place, "bin", shared.name), 0o755);
  pack(laid);
  return name;
}

try {
  mkdirSync(out, { recursive: true });
  const names = binaries.map((given) => packPlatform(...given.split("=", 2)));
  const main = lay(shared.name, shared.description, readFileSync(join(here, "../README.md")));
  cpSync(join(here, "bin"), join(main.place, "bin"), { recursive: true });
  const optionalDependencies = Object.fromEntries(names.map((name) => [name, shared.version]));
  Object.assign(main.manifest, { bin, engines, optionalDependencies });
  pack(main);
} finally {
  rmSync(work, { recursive: true });
}
