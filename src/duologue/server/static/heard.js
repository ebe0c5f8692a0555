// Split an agent's text into what was heard and the rest.

// `made` is the whole text of a speech, `heard` the part that was heard according to the server.
// White space is ignored in the comparison. Return {heard, rest}.
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
