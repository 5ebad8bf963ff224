#!/usr/bin/env node
// What arrives is answered with its SHA-256: the smallest service that an agent can offer over a channel, in Node.
//
// Whoever offers it runs it beside their end of a channel; the other end copies files into its outbox/ and finds NAME.sha256
// for each in its inbox/. It ends when the other end closes.
//
//   agent-wormhole connect CODE --detach        # its first line says where the directory is
//   node checksums.js DIRECTORY                 # needs: npm install chokidar
//
// chokidar sees what arrives in a mount (FUSE) and in a real directory alike, and what was there before it came. A file of the
// inbox is whole as soon as it is seen, so nothing has to wait for the end of a write.
const { watch } = require("chokidar");
const crypto = require("node:crypto");
const fs = require("node:fs");
const path = require("node:path");

const [inbox, outbox] = ["inbox", "outbox"].map((name) => path.join(process.argv[2], name));
const log = path.join(inbox, "log.jsonl");
// What is in every inbox: in a real directory `secrets` is a file, too.
const own = [log, path.join(inbox, "secrets")];

// Each whole line of the log is an event; a name or a text that looks like one is inside of a JSON string.
const hasLeft = () =>
  fs.readFileSync(log, "utf8").split("\n").slice(0, -1).map((line) => JSON.parse(line))
    .some(({ event }) => event === "peer_closed" || event === "closed");

async function answer(file) {
  const hash = crypto.createHash("sha256");
  for await (const chunk of fs.createReadStream(file)) hash.update(chunk);
  const name = path.basename(file);
  fs.writeFileSync(path.join(outbox, `${name}.sha256`), `${hash.digest("hex")}  ${name}\n`);
  console.log(`answered ${name}`);
}

const watcher = watch(inbox, { depth: 0 });
const leave = () => hasLeft() && watcher.close();
watcher.on("add", (file) => {
  // Two ends that both run this would answer each other's answers for ever.
  if (!own.includes(file) && !file.endsWith(".sha256")) answer(file).catch((error) => console.error(error.message));
});
watcher.on("change", (file) => file === log && leave());
watcher.on("ready", leave);
