// Which part of an agent's words was heard.

// `made` is all that was said by the model, `heard` what the server says was heard of it. They
// are compared without regard to white space. Returns {heard, rest}.
export function splitHeard(made, heard) {
  let at = 0;
  for (const character of heard) {
    if (/\s/.test(character)) continue;
    while (at < made.length && /\s/.test(made[at])) at += 1;
    if (!made.startsWith(character, at)) return byWords(made, heard);
    at += character.length;
  }
  return { heard: made.slice(0, at), rest: made.slice(at) };
}

function byWords(made, heard) {
  const count = heard.split(/\s+/).filter(Boolean).length;
  const words = made.match(/\s*\S+/g) ?? [];
  return { heard, rest: words.slice(count).join("") };
}
