// What the programs share: where to go, and what they are asked to do. See common.py.

"use strict";

const url = process.env.DATABASE_URL;

/** Gives the next number to a function that writes it, and says so, until standard input has ended. */
async function acknowledged(write) {
  let ended = false;
  process.stdin.on("end", () => (ended = true)).resume();
  for (let n = 1; !ended; n += 1) {
    await write(n);
    console.log(n);
  }
}

function run(checks, write) {
  const work = async () => {
    const mode = process.argv[2];
    if (mode === "check") {
      for (const check of checks) {
        console.log(check.name);
        await check();
      }
    } else if (mode === "write") {
      await write(acknowledged);
    } else {
      throw new Error(`check or write, not ${mode}`);
    }
  };
  work().then(
    () => process.exit(0),
    (error) => {
      console.error(error);
      process.exit(1);
    },
  );
}

module.exports = { url, run };
