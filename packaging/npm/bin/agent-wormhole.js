#!/usr/bin/env node
// The command of the npm package: hands over to the program, which lies in the package of this platform. Where Node can, the
// program takes this process's place. Elsewhere it is a child that has the same streams, is told the same signals, and
// ends this process as it ended.
"use strict";

const { spawn } = require("node:child_process");
const { readFileSync } = require("node:fs");
const { constants } = require("node:os");

const NAME = "agent-wormhole";
/** What ends the program, or asks it to end. */
const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"];

/** Where the program of this platform lies. */
function program() {
  const platform = `${process.platform}-${process.arch}`;
  try {
    return require.resolve(`@${NAME}/${platform}/bin/${NAME}`);
  } catch {
    process.stderr.write(
      `${NAME}: the package @${NAME}/${platform} is not installed. If there is one for this platform, install ${NAME} again ` +
        "with optional dependencies (not --omit=optional); else build it: cargo install --path .\n",
    );
    process.exit(1);
  }
}

/**
 * Whether a terminal sends its signals to this process, and so to the child, too: telling the child again would be a second
 * Ctrl-C, which means not to wait for what is still to be delivered.
 */
function terminalTellsBoth() {
  try {
    const stat = readFileSync("/proc/self/stat", "latin1");
    const [, , group, , terminal, foreground] = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return terminal !== "0" && group === foreground;
  } catch {
    return process.stdin.isTTY === true;
  }
}

/** Runs the program as a child. */
function run(file, args) {
  const child = spawn(file, args, { argv0: NAME, stdio: "inherit" });
  for (const signal of SIGNALS) {
    process.on(signal, () => {
      if (signal !== "SIGINT" || !terminalTellsBoth()) child.kill(signal);
    });
  }
  child.on("error", (error) => {
    process.stderr.write(`${NAME}: ${file} cannot be run: ${error.message}; install the package again\n`);
    process.exit(1);
  });
  child.on("exit", (code, signal) => {
    if (signal === null) process.exit(code);
    process.removeAllListeners(signal);
    process.kill(process.pid, signal);
    // A signal that does not end this process, or not at once.
    process.exitCode = 128 + constants.signals[signal];
  });
}

const file = program();
const args = process.argv.slice(2);
if (typeof process.execve === "function") process.execve(file, [NAME, ...args], process.env);
else run(file, args);
