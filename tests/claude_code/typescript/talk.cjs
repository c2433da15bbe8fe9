// Talks to the Claude API at `url` through the official client, once for each of `headers`; prints what it saw as JSON.
// Usage: node talk.cjs '{"url": …, "key": …, "model": …, "headers": [{…}, …]}'; the client is found from the working directory.
const { default: Anthropic } = require(require.resolve("@anthropic-ai/sdk", { paths: [process.cwd()] }));

const { url, key, model, headers } = JSON.parse(process.argv[2]);
const tools = [
  { name: "get_weather", input_schema: { type: "object", properties: { place: { type: "string" } }, required: ["place"] } },
];

function asking(text) {
  return { model, max_tokens: 999, tools, messages: [{ role: "user", content: text }] };
}

function shown(message) {
  return message.content.map((block) => (block.type === "tool_use" ? block.input : (block.text ?? block.type)));
}

async function failure(promise) {
  try {
    await promise;
  } catch (error) {
    return { kind: error.constructor.name, status: error.status ?? null, type: error.type ?? null };
  }
  return null;
}

async function talk(client) {
  const whole = await client.messages.create(asking("[[text:whole ü]] [[tools:1]]"));
  const stream = client.messages.stream(asking("[[text:streamed 😀]] [[thinking]] [[tools:1]]"));
  const events = [];
  for await (const event of stream) events.push(event.type);
  const streamed = await stream.finalMessage();
  const { input_tokens: counted } = await client.messages.countTokens({ ...asking("[[text:whole ü]] [[tools:1]]"), max_tokens: undefined });
  return {
    whole: shown(whole),
    streamed: shown(streamed),
    first: events[0],
    last: events.at(-1),
    tokens: [whole.usage.input_tokens, counted],
    throttled: await failure(client.messages.create(asking("[[error:429]]"))),
    missing: await failure(client.messages.create(asking("[[error:404]]"))),
    broken: await failure(client.messages.stream(asking("[[text:one two]] [[error_event:overloaded_error after=5]]")).finalMessage()),
  };
}

(async () => {
  const seen = [];
  for (const each of headers) {
    const client = new Anthropic({ baseURL: url, apiKey: key, maxRetries: 0, timeout: 20_000, defaultHeaders: each });
    seen.push(await talk(client));
  }
  console.log(JSON.stringify(seen));
})();
