// Shows the gateway's OpenAPI document and sends what the reader wants to try. Nothing is loaded from elsewhere, and
// nothing is kept: the API key lives in its input for as long as the page is open.

const BASE = new URL('.', location).href.replace(/\/$/, '');
const SHOWN_BYTES = 65_536;
const DEPTH = 7;

let api;

function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, '');
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.flat(Infinity).filter((child) => child != null && child !== ''));
  return element;
}

function follow(value) {
  while (value?.$ref) value = value.$ref.slice(2).split('/').reduce((at, step) => at[step], api);
  return value;
}

const nameOf = (schema) => schema?.$ref?.split('/').at(-1);

// Paragraphs and `code`, which is all the Markdown the document has.
function prose(text) {
  return (text ?? '').split(/\n\s*\n/).filter(Boolean).map((paragraph) => h('p', {}, inline(paragraph)));
}

function inline(text) {
  return (text ?? '').split(/(`[^`]+`)/).map((part) => (part.startsWith('`') ? h('code', {}, part.slice(1, -1)) : part));
}

// Schemas

function flat(schema) {
  const own = follow(schema) ?? {};
  const parts = (own.allOf ?? []).map(flat);
  const merged = Object.assign({}, ...parts, own);
  merged.properties = Object.assign({}, ...parts.map((part) => part.properties ?? {}));
  for (const [name, member] of Object.entries(own.properties ?? {})) {
    const before = merged.properties[name];
    merged.properties[name] = before && !member.$ref ? { ...before, ...member } : member;
  }
  merged.required = [...parts.flatMap((part) => part.required ?? []), ...(own.required ?? [])];
  return merged;
}

function choicesOf(schema) {
  return (schema.anyOf ?? schema.oneOf ?? []).filter((choice) => choice.type !== 'null');
}

function isNullable(schema) {
  return (schema.anyOf ?? schema.oneOf ?? []).some((choice) => choice.type === 'null');
}

function typeOf(schema) {
  const named = nameOf(schema);
  const own = follow(schema) ?? {};
  const choices = own.type ? [] : choicesOf(own);
  let type;
  if (own.const !== undefined) type = JSON.stringify(own.const);
  else if (own.enum) type = own.enum.length > 12 ? 'one of the codes' : own.enum.map((value) => JSON.stringify(value)).join(' | ');
  else if (choices.length) type = [...new Set(choices.map(typeOf))].join(' | ');
  else if (own.type === 'array') type = own.items || own.prefixItems ? `list of ${typeOf(own.items ?? {})}` : 'list';
  else type = own.format ? `${own.type}, ${own.format}` : (own.type ?? (named ? 'object' : 'anything'));
  return isNullable(own) ? `${type} | null` : type;
}

function limitsOf(schema) {
  const own = follow(schema) ?? {};
  const within = [own, ...choicesOf(own).map(follow)];
  const found = [];
  const say = (name, write) => {
    const value = within.map((each) => each[name]).find((each) => each !== undefined);
    if (value !== undefined) found.push(write(value));
  };
  say('minimum', (value) => `≥ ${value}`);
  say('exclusiveMinimum', (value) => `> ${value}`);
  say('maximum', (value) => `≤ ${value}`);
  say('maxLength', (value) => `at most ${value} characters`);
  if (own.default !== undefined && own.default !== null && typeof own.default !== 'object') {
    found.push(`default ${JSON.stringify(own.default)}`);
  }
  return found.join(', ');
}

function members(schema, depth = 0) {
  const own = flat(schema);
  const entries = Object.entries(own.properties ?? {});
  if (!entries.length || depth > DEPTH) return null;
  return h('dl', { class: 'members' }, entries.map(([name, member]) => {
    const told = follow(member);
    const description = member.description ?? (nameOf(member) ? null : told?.description);
    return h('div', {},
      h('dt', {}, h('span', { class: 'mono' }, name), h('span', { class: 'kind' }, typeOf(member)),
        own.required.includes(name) ? h('span', { class: 'must' }, 'required') : null,
        h('span', { class: 'kind' }, limitsOf(member))),
      h('dd', {}, inline(description), inside(member, depth + 1)));
  }));
}

// What a member holds in its turn, folded.
function inside(schema, depth) {
  const own = follow(schema) ?? {};
  const wanted = own.type === 'array' ? [own.items ?? {}] : [schema, ...choicesOf(own)];
  return wanted.map((each) => {
    const list = members(each, depth);
    return list && h('details', { class: 'inner' }, h('summary', {}, nameOf(each) ?? 'members'), list);
  });
}

function shape(schema) {
  const own = follow(schema) ?? {};
  const variants = (own.oneOf ?? own.anyOf ?? []).filter((each) => each.properties?.type?.const);
  return [
    members(schema),
    variants.map((each) => h('details', { class: 'inner' },
      h('summary', {}, `input of ${each.properties.type.const}`), members(each.properties.input))),
  ];
}

// Samples

function json(value) {
  const text = typeof value === 'string' ? value : JSON.stringify(value, null, 2);
  const pieces = text.split(/("(?:[^"\\]|\\.)*"(?:\s*:)?|\b(?:true|false|null)\b|-?\b\d[\d.eE+-]*\b)/);
  return pieces.map((piece, index) => {
    if (index % 2 === 0) return piece;
    const kind = piece.endsWith(':') ? 'key' : piece.startsWith('"') ? 'text' : /^[tfn]/.test(piece) ? 'word' : 'number';
    return h('span', { class: kind }, piece);
  });
}

function panel(title, choices, extra) {
  const body = h('pre', {});
  const show = () => body.replaceChildren(...[choices[select.selectedIndex]?.render() ?? ''].flat());
  const select = h('select', { 'aria-label': title, onchange: show }, choices.map((each) => h('option', {}, each.label)));
  select.hidden = choices.length < 2;
  show();
  return h('div', { class: 'panel' }, h('div', { class: 'bar' }, h('span', {}, title), select, extra), body);
}

function examplesOf(media) {
  return Object.entries(media?.examples ?? {}).map(([name, example]) => ({ name, ...follow(example) }));
}

function requestSamples(operation) {
  return Object.entries(operation.requestBody?.content ?? {}).flatMap(([type, media]) =>
    examplesOf(media).map((example) => ({ type, ...example })));
}

function curl(operation, sample) {
  const url = api.servers[0].url + addressOf(operation, exampleOf);
  const lines = [`curl ${operation.method === 'get' ? '' : `-X ${operation.method.toUpperCase()} `}'${url}'`];
  if (operation.security.length) lines.push(`-H "Authorization: Bearer $API_KEY"`);
  if (sample?.type === 'multipart/form-data') {
    for (const [name, value] of Object.entries(sample.value)) {
      if (typeof value === 'object') lines.push(`-F '${name}=${JSON.stringify(value)};type=application/json'`);
      else lines.push(isFile(value) ? `-F '${name}=@FILE'` : `-F '${name}=${value}'`);
    }
  } else if (sample?.type === 'application/json') {
    lines.push(`-H 'Content-Type: application/json'`, `-d '${JSON.stringify(sample.value, null, 2).replaceAll("'", "'\\''")}'`);
  } else if (sample?.type.startsWith('text/')) {
    lines.push(`-H 'Content-Type: ${sample.type}'`, `-d '${sample.value.replaceAll("'", "'\\''")}'`);
  } else if (sample) lines.push(`-H 'Content-Type: ${sample.type}'`, '--data-binary @FILE');
  return lines.join(' \\\n  ');
}

const isFile = (value) => value === '(the bytes of the file)';
const exampleOf = (parameter) => parameter.example;

function addressOf(operation, valueOf) {
  const of = (where) => (operation.parameters ?? []).filter((each) => each.in === where);
  const path = of('path').reduce((at, each) => at.replace(`{${each.name}}`, encodeURIComponent(valueOf(each) ?? '')), operation.path);
  const query = new URLSearchParams();
  if (valueOf !== exampleOf) {
    for (const each of of('query')) if (valueOf(each)) query.set(each.name, valueOf(each));
  }
  return path + (query.size ? `?${query}` : '');
}

// Trying things out

function tryIt(operation) {
  const fields = new Map();
  const samples = requestSamples(operation);
  const row = (name, field, label = name) => {
    fields.set(name, field);
    field.setAttribute('aria-label', label);
    return [h('label', {}, label), field];
  };
  const rows = (operation.parameters ?? []).filter((each) => !['If-None-Match', 'Range'].includes(each.name)).map((each) =>
    row(each.name, h('input', {
      placeholder: each.required ? 'required' : String(each.example ?? ''), required: each.required,
    })));
  const body = h('div', { class: 'parts' });
  const choice = h('select', { 'aria-label': 'Body', onchange: () => fill() },
    samples.map((each) => h('option', {}, samples.length > 1 ? `${each.name}, ${each.type}` : each.type)));
  const parts = new Map();
  function fill() {
    const sample = samples[choice.selectedIndex];
    parts.clear();
    if (!sample) return;
    if (sample.type === 'multipart/form-data') {
      body.replaceChildren(...Object.entries(sample.value).flatMap(([name, value]) => {
        const field = isFile(value)
          ? h('input', { type: 'file' })
          : h('textarea', { class: typeof value === 'object' ? '' : 'small', spellcheck: 'false' },
            typeof value === 'object' ? JSON.stringify(value, null, 2) : value);
        field.setAttribute('aria-label', name);
        parts.set(name, field);
        return [h('label', {}, name), field];
      }));
    } else if (/json|text/.test(sample.type)) {
      const text = typeof sample.value === 'string' ? sample.value : JSON.stringify(sample.value, null, 2);
      parts.set('', h('textarea', { 'aria-label': 'Body', spellcheck: 'false' }, text));
      body.replaceChildren(parts.get(''));
    } else {
      parts.set('', h('input', { type: 'file', 'aria-label': 'Body' }));
      body.replaceChildren(h('label', {}, 'Body'), parts.get(''));
    }
  }
  fill();
  const output = h('pre', { hidden: true });
  const said = h('span', {});
  const stop = h('button', { type: 'button', hidden: true }, 'Stop');
  const form = h('form', {
    onsubmit: async (event) => {
      event.preventDefault();
      const controller = new AbortController();
      stop.hidden = false;
      stop.onclick = () => controller.abort();
      output.hidden = false;
      output.replaceChildren();
      try {
        await send(operation, fields, samples[choice.selectedIndex], parts, controller.signal, said, output);
      } catch (error) {
        if (error.name !== 'AbortError') said.textContent = String(error.message ?? error);
      } finally {
        stop.hidden = true;
      }
    },
  }, rows, samples.length ? [h('label', {}, 'Body'), choice] : [], body,
  h('div', { class: 'run' }, h('button', { class: 'go' }, 'Send'), stop, said));
  return h('div', { class: 'panel' }, h('div', { class: 'bar' }, h('span', {}, 'Try it')), form, output);
}

async function send(operation, fields, sample, parts, signal, said, output) {
  const headers = {};
  const key = document.querySelector('#key').value;
  if (key && operation.security.length) headers.Authorization = `Bearer ${key}`;
  for (const each of operation.parameters ?? []) {
    const value = fields.get(each.name)?.value;
    if (each.in === 'header' && value) headers[each.name] = value;
  }
  let body;
  if (sample?.type === 'multipart/form-data') {
    body = new FormData();
    for (const [name, field] of parts) {
      const value = sample.value[name];
      if (field.type === 'file') { if (field.files[0]) body.append(name, field.files[0]); }
      else body.append(name, field.value);
    }
  } else if (sample) {
    headers['Content-Type'] = sample.type;
    body = parts.get('').type === 'file' ? parts.get('').files[0] : parts.get('').value;
  }
  const began = performance.now();
  const url = BASE + addressOf(operation, (each) => fields.get(each.name)?.value);
  said.textContent = '…';
  const answer = await fetch(url, { method: operation.method.toUpperCase(), headers, body, signal, cache: 'no-store' });
  const took = Math.round(performance.now() - began);
  said.textContent = `${answer.status} ${answer.statusText} in ${took} ms${answer.redirected ? ', after a redirect' : ''}`;
  const type = answer.headers.get('content-type') ?? '';
  if (!/json|text|^$/.test(type)) {
    output.replaceChildren(`${(await answer.blob()).size} bytes of ${type}`);
    return;
  }
  await show(answer, type, output);
}

// Shows an answer while it comes in, so that a stream of events can be watched.
async function show(answer, type, output) {
  const reader = answer.body?.pipeThrough(new TextDecoderStream()).getReader();
  let text = '';
  while (reader && text.length < SHOWN_BYTES) {
    const { done, value } = await reader.read();
    if (done) break;
    text += value;
    if (type.includes('event-stream')) output.replaceChildren(text);
  }
  reader?.cancel();
  try {
    output.replaceChildren(...(type.includes('json') ? json(JSON.parse(text)) : [text || 'no body']));
  } catch {
    output.replaceChildren(text);
  }
}

// The page

function answers(operation) {
  return Object.entries(operation.responses).map(([status, answer]) => {
    const [type, media] = Object.entries(answer.content ?? {})[0] ?? [];
    const kind = status < '300' ? 'ok' : status < '400' ? 'moved' : 'bad';
    const codes = type === 'application/problem+json' ? examplesOf(media) : [];
    const heads = Object.entries(answer.headers ?? {});
    const detail = codes.length
      ? h('ul', { class: 'codes' }, codes.map((each) => h('li', {},
        h('a', { href: `problems/${each.name}` }, h('code', {}, each.name)), ' ', h('span', { class: 'kind' }, each.summary))))
      : [type && media.schema ? members(media.schema) ?? h('p', { class: 'kind' }, type) : null];
    const text = codes.length ? codes.map((each) => each.name).join(', ') : answer.description;
    return h('details', { class: 'answer' },
      h('summary', {}, h('b', { class: kind }, status), h('span', { class: codes.length ? 'kind' : '' }, inline(text))),
      h('div', {},
        heads.length ? h('dl', { class: 'members' }, heads.map(([name, head]) => h('div', {},
          h('dt', {}, h('span', { class: 'mono' }, name), h('span', { class: 'kind' }, head.required ? '' : 'sometimes')),
          h('dd', {}, inline(head.description))))) : null,
        detail));
  });
}

function parameters(operation) {
  const list = operation.parameters ?? [];
  if (!list.length) return [];
  return [h('h4', {}, 'Parameters'), h('dl', { class: 'members' }, list.map((each) => h('div', {},
    h('dt', {}, h('span', { class: 'mono' }, each.name), h('span', { class: 'kind' }, `${each.in}, ${typeOf(each.schema)}`),
      each.required ? h('span', { class: 'must' }, 'required') : null),
    h('dd', {}, inline(each.description)))))];
}

function bodies(operation) {
  return Object.entries(operation.requestBody?.content ?? {}).map(([type, media], index, all) => {
    const schema = media.schema?.contentSchema ?? media.schema;
    const content = shape(schema).flat().filter(Boolean);
    const title = `Body, ${type}`;
    if (index === 0 || !content.length) return [h('h4', {}, title), content];
    return h('details', { class: 'inner' }, h('summary', {}, title), content);
  });
}

function whoMay(operation) {
  if (!operation.security.length) return 'no credentials needed';
  const scope = operation.security[0].apiKey?.[0];
  const key = scope ? `API key with scope ${scope}` : 'any API key';
  return operation.security.length > 1 ? `${key}, or a ticket` : key;
}

function section(operation) {
  const samples = requestSamples(operation);
  const shown = Object.entries(operation.responses).flatMap(([status, answer]) =>
    Object.values(answer.content ?? {}).flatMap((media) => examplesOf(media).map((each) => ({
      label: status < '400' ? `${status} ${each.name === 'example' ? '' : each.name}` : `${status} ${each.name}`,
      render: () => json(each.value),
    }))));
  // Keys that look like numbers come in their order; what usually happens should come first.
  shown.sort((one, other) => other.label.startsWith('202') - one.label.startsWith('202'));
  const attempt = tryIt(operation);
  attempt.hidden = true;
  const open = h('button', { class: 'go', onclick: () => { attempt.hidden = !attempt.hidden; } }, 'Try it');
  const choices = (samples.length ? samples : [null]).map((sample) => ({
    label: sample ? (samples.length > 1 ? `${sample.name}, ${sample.type.split('/')[1]}` : sample.name) : '',
    render: () => curl(operation, sample),
  }));
  return h('section', { id: operation.operationId },
    h('div', {},
      h('h3', {}, operation.summary),
      h('div', { class: 'address' }, h('span', { class: `verb ${operation.method}` }, operation.method),
        h('span', { class: 'mono' }, operation.path), h('span', { class: 'who' }, whoMay(operation))),
      prose(operation.description), parameters(operation), bodies(operation),
      h('h4', {}, 'Answers'), answers(operation)),
    h('aside', {}, panel('Request', choices, open), attempt, shown.length ? panel('Answer', shown) : null));
}

function eventSection(name, item) {
  const operation = follow(item).post;
  const [type, media] = Object.entries(operation.requestBody.content)[0];
  return h('section', { id: `event-${name}` },
    h('div', {}, h('h3', {}, name), h('div', { class: 'address' }, h('span', { class: 'verb event' }, 'post'),
      h('span', { class: 'mono' }, 'your callbackUrl')), prose(operation.summary), parameters(operation),
    h('h4', {}, `Body, ${type}`), shape(media.schema)),
    h('aside', {}, panel('Sample', examplesOf(media).map((each) => ({ label: each.name, render: () => json(each.value) })))));
}

function menuEntry(id, verb, text) {
  return h('a', { href: `#${id}`, 'data-id': id }, h('span', { class: `verb ${verb}` }, verb === 'delete' ? 'del' : verb), text);
}

function render() {
  const operations = Object.entries(api.paths).flatMap(([path, item]) =>
    Object.entries(item).map(([method, operation]) => ({ path, method, ...operation })));
  const main = document.querySelector('main');
  const menu = document.querySelector('#menu');
  document.title = api.info.title;
  document.querySelector('#version').textContent = api.info.version;
  main.replaceChildren(h('div', { class: 'intro' }, h('h1', {}, api.info.title), prose(api.info.description)));
  for (const tag of api.tags) {
    const own = operations.filter((each) => each.tags[0] === tag.name);
    if (!own.length) continue;
    main.append(h('h2', { class: 'tag' }, tag.name), h('p', {}, tag.description), ...own.map(section));
    menu.append(h('div', {}, h('h2', {}, tag.name), own.map((each) => menuEntry(each.operationId, each.method, each.summary))));
  }
  const events = Object.entries(api.webhooks ?? {});
  main.append(h('h2', { class: 'tag' }, 'Callbacks'), h('p', {}, 'What the gateway sends to your callback URL, signed by Standard Webhooks.'),
    ...events.map(([name, item]) => eventSection(name, item)));
  menu.append(h('div', {}, h('h2', {}, 'Callbacks'), events.map(([name]) => menuEntry(`event-${name}`, 'event', name))));
}

function watchMenu() {
  const entries = new Map([...document.querySelectorAll('nav a')].map((each) => [each.dataset.id, each]));
  const seen = new IntersectionObserver((changes) => {
    const top = changes.filter((each) => each.isIntersecting).at(0);
    if (!top) return;
    for (const each of entries.values()) each.classList.toggle('here', each.dataset.id === top.target.id);
  }, { rootMargin: '-10% 0px -75%' });
  for (const each of document.querySelectorAll('section')) seen.observe(each);
  document.querySelector('#filter').addEventListener('input', (event) => {
    const wanted = event.target.value.toLowerCase();
    for (const group of document.querySelectorAll('#menu > div')) {
      const links = [...group.querySelectorAll('a')];
      for (const link of links) link.hidden = !link.textContent.toLowerCase().includes(wanted);
      group.hidden = links.every((link) => link.hidden);
    }
  });
}

try {
  api = await (await fetch(`${BASE}/openapi.json`)).json();
  render();
  watchMenu();
  if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();
} catch (error) {
  document.querySelector('main').replaceChildren(h('p', { class: 'loading' }, `openapi.json cannot be shown: ${error.message}`));
}
