// Plays the scenarios of one client against each target, and writes what it saw, one line of JSON each.
//
//     node run.mjs npm-openai-chat < job.json
//
// The job: {facts, targets: [{provider, url, key, models, scenarios}]}.

import { readFileSync } from "node:fs";
import { play } from "./play.mjs";

const MODULES = {
  "npm-openai-chat": ["./npm_openai.mjs", "ChatCompletions"],
  "npm-openai-responses": ["./npm_openai.mjs", "Responses"],
  "npm-anthropic": ["./npm_anthropic.mjs", "Messages"],
  "npm-google-genai": ["./npm_google_genai.mjs", "GenerateContent"],
  "ai-openai-chat": ["./npm_ai.mjs", "OpenAIChat"],
  "ai-openai-responses": ["./npm_ai.mjs", "OpenAIResponses"],
  "ai-anthropic": ["./npm_ai.mjs", "Anthropic"],
  "ai-google": ["./npm_ai.mjs", "Google"],
  "ai-mistral": ["./npm_ai.mjs", "Mistral"],
};

const job = JSON.parse(readFileSync(0, "utf8"));
const [file, name] = MODULES[process.argv[2]];
const Client = (await import(file))[name];

function write(line) {
  process.stdout.write(`${JSON.stringify(line)}\n`);
}

// What a client leaves unhandled is a failure of its own, told with the scenario it belongs to.
let current = {};
process.on("unhandledRejection", (error) => write({ ...current, unhandled: String(error?.stack ?? error) }));

write({ versions: Client.packages.map((each) => `${each} ${versionOf(each)}`).join(", "), node: process.version });
for (const { provider, url, key, models, scenarios } of job.targets) {
  const client = new Client(url, key, job.facts);
  for (const scenario of scenarios) {
    current = { provider, scenario };
    write({ ...current, seen: await play(client, scenario, models, job.facts) });
  }
}

function versionOf(name) {
  return JSON.parse(readFileSync(new URL(`../node_modules/${name}/package.json`, import.meta.url), "utf8")).version;
}
