'use strict';
// Numbers by value, texts by letters; what is missing comes last in both directions. Equal rows keep their order.
function compareValues(a, b, descending) {
  if (a === '' || b === '') return (a === '') - (b === '');
  const numbers = [Number(a), Number(b)];
  const order = numbers.some(Number.isNaN) ? a.localeCompare(b) : numbers[0] - numbers[1];
  return descending ? -order : order;
}

// Texts as shown -> each one's rank from 0 (best) and shade from 1 to 0; equal texts have one rank, '-' has none.
function ranked(texts) {
  const order = [...new Set(texts.filter(text => text !== '-').map(Number))].sort((a, b) => b - a);
  const alone = texts.filter(text => text !== '-').length < 2;
  return texts.map(text => {
    if (alone || text === '-') return { text, rank: null, shade: null };
    const rank = order.indexOf(Number(text));
    return { text, rank, shade: 1 - rank / Math.max(order.length - 1, 1) };
  });
}

// Lines of the matrix in groups; `choice` has grouped (keys), convention (0 to 2), benchmarks.
function makeMatrix(lines, runs, choice) {
  const keys = ['protocol', 'backbone'], { benchmarks, convention, grouped } = choice;
  const run = (line, benchmark) => runs[line.runs[benchmark]];
  const groups = new Map();
  for (const line of lines.filter(line => benchmarks.some(name => name in line.runs))) {
    const title = keys.filter(key => grouped.includes(key)).map(key => `${key} ${line[key]}`).join(', ');
    groups.set(title, [...(groups.get(title) || []), line]);
  }
  const place = ([title, members]) => {
    const columns = benchmarks.map(name => ranked(members.map(line => run(line, name)?.shown[convention] ?? '-')));
    const known = members.map(line => benchmarks.map(name => run(line, name)?.miou[convention] ?? null).filter(v => v !== null));
    const means = known.map(values => values.length ? (values.reduce((a, b) => a + b) / values.length).toFixed(2) : '-');
    const most = columns.filter(column => column.some(cell => cell.text !== '-')).length;
    const comparable = ranked(means.map((mean, i) => known[i].length === most ? mean : '-'));
    const rows = members.map((line, i) => ({
      line, count: known[i].length, cells: columns.map(column => column[i]),
      mean: known[i].length === most ? comparable[i] : { text: means[i], rank: null, shade: null },
    }));
    for (const row of rows) {
      const some = row.count && row.count < benchmarks.length;
      row.meanText = some ? `${row.mean.text} (${row.count})` : row.mean.text;
    }
    return { title, rows };
  };
  const beside = keys.filter(key => !grouped.includes(key));
  return { benchmarks, beside, groups: [...groups].map(place) };
}

// What a reader must know of the table.
function captionOf(matrix, runs, choice, conventions) {
  const lines = matrix.groups.flatMap(group => group.rows.map(row => row.line));
  const shown = lines.flatMap(line => matrix.benchmarks.filter(name => name in line.runs).map(name => runs[line.runs[name]]));
  const kinds = new Set(shown.map(run => run.labelledOnly));
  const own = kinds.size === 1 ? conventions[kinds.has(true) ? 2 : 1] : conventions[0];
  const sentences = [`mIoU in %, ${choice.convention ? conventions[choice.convention] : own}.`];
  if (lines.length && lines[0].first) sentences.push(`Only the first ${lines[0].first} pictures.`);
  for (const key of ['protocol', 'backbone']) {
    const values = [...new Set(lines.map(line => line[key]))];
    sentences.push(`${key[0].toUpperCase()}${key.slice(1)}${values.length > 1 ? 's' : ''}: ${values.join(', ')}.`);
  }
  sentences.push(`Best in bold, second best underlined${matrix.groups.length > 1 ? ', of each group' : ''}.`);
  if (matrix.benchmarks.length > 1) {
    sentences.push('Mean: over the benchmarks that a row has, their number in brackets where it lacks some.');
  }
  return sentences.join(' ');
}

const oneLine = text => text.split(/\s+/).filter(Boolean).join(' ');
const markdownText = text => oneLine(text).replace(/&/g, '&amp;').replace(/</g, '&lt;').replace(/>/g, '&gt;').replace(/\|/g, '\\|');
const latexText = (text, letters) => [...oneLine(text).replace(/\p{C}/gu, '')].map(letter => letters[letter] ?? letter).join('');
const csvText = text => /[",\r\n]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text;
const csvTable = rows => rows.map(row => row.map(csvText).join(',') + '\r\n').join('');
const markdownTable = (header, rows) => [header, header.map(() => '---'), ...rows].map(row => `| ${row.join(' | ')} |`).join('\n');

function latexTable(texts, header, parts, caption) {
  const lines = ['% needs \\usepackage{booktabs}', '\\begin{table}[t]', '\\centering', `\\caption{${caption}}`,
    `\\begin{tabular}{${'l'.repeat(texts)}${'r'.repeat(header.length - texts)}}`, '\\toprule', `${header.join(' & ')} \\\\`];
  for (const [title, rows] of parts) {
    lines.push('\\midrule', ...(title ? [`\\multicolumn{${header.length}}{l}{\\textit{${title}}} \\\\`] : []));
    lines.push(...rows.map(row => `${row.join(' & ')} \\\\`));
  }
  return [...lines, '\\bottomrule', '\\end{tabular}', '\\end{table}', ''].join('\n');
}

function headerOf(matrix) {
  return ['method', ...matrix.beside, ...matrix.benchmarks, ...(matrix.benchmarks.length > 1 ? ['mean'] : [])];
}

// The matrix in a markup: `escape` for texts, `marks` around the first ranks.
function matrixTexts(matrix, row, escape, marks) {
  const cells = row.cells.map(cell => [cell.text, cell.rank]);
  if (matrix.benchmarks.length > 1) cells.push([row.meanText, row.mean.rank]);
  const marked = cells.map(([text, rank]) => marks[rank] ? marks[rank][0] + text + marks[rank][1] : text);
  return [...[row.line.label, ...matrix.beside.map(key => row.line[key])].map(escape), ...marked];
}

const FORMATS = {
  markdown(matrix, caption) {
    const header = headerOf(matrix), marks = { 0: ['**', '**'], 1: ['<u>', '</u>'] }, rows = [];
    for (const group of matrix.groups) {
      if (group.title) rows.push([`*${markdownText(group.title)}*`, ...header.slice(1).map(() => '')]);
      rows.push(...group.rows.map(row => matrixTexts(matrix, row, markdownText, marks)));
    }
    return `${markdownTable(header.map(markdownText), rows)}\n\n${markdownText(caption)}\n`;
  },
  csv(matrix) {
    const number = cell => cell.text === '-' ? '' : cell.text;
    const rows = matrix.groups.flatMap(group => group.rows).map(row => [
      row.line.label, row.line.protocol, row.line.backbone, ...row.cells.map(number), number(row.mean), String(row.count)]);
    return csvTable([['method', 'protocol', 'backbone', ...matrix.benchmarks, 'mean', 'mean of'], ...rows]);
  },
  latex(matrix, caption, letters) {
    const escape = text => latexText(text, letters), marks = { 0: ['\\textbf{', '}'], 1: ['\\underline{', '}'] };
    const parts = matrix.groups.map(group => [escape(group.title), group.rows.map(row => matrixTexts(matrix, row, escape, marks))]);
    return latexTable(1 + matrix.beside.length, headerOf(matrix).map(escape), parts, escape(caption));
  },
};

// A plain table of texts in a markup.
const TABLES = {
  markdown: (header, rows, caption) => `${markdownTable(header.map(markdownText), rows.map(row => row.map(markdownText)))}\n\n${markdownText(caption)}\n`,
  csv: (header, rows) => csvTable([header, ...rows.map(row => row.map(text => text === '-' ? '' : text))]),
  latex: (header, rows, caption, letters) => {
    const escape = text => latexText(text, letters);
    return latexTable(1, header.map(escape), [['', rows.map(row => row.map(escape))]], escape(caption));
  },
};

// ---- The page.
function start() {
  const byId = id => document.getElementById(id);
  const data = JSON.parse(byId('data').textContent);
  const shown = value => value === null || value === undefined ? '-' : typeof value === 'number' ? value.toFixed(2) : String(value);
  const signed = value => value === null ? '-' : (value < 0 ? '' : '+') + value.toFixed(2);

  function el(tag, attributes, ...children) {
    const node = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes || {})) {
      if (value !== null && value !== undefined && value !== false) node.setAttribute(key, value === true ? '' : value);
    }
    node.append(...children);
    return node;
  }

  function sortBy(table, column, descending) {
    [...table.tHead.rows[0].cells].forEach((head, i) =>
      head.setAttribute('aria-sort', i === column ? (descending ? 'descending' : 'ascending') : 'none'));
    const value = row => row.cells[column].dataset.value;
    const rows = [...table.tBodies[0].rows].sort((a, b) => compareValues(value(a), value(b), descending));
    table.tBodies[0].append(...rows);
  }

  function makeSortable(table) {
    [...table.tHead.rows[0].cells].forEach((head, column) => head.querySelector('button').addEventListener('click', () =>
      sortBy(table, column, head.getAttribute('aria-sort') === 'ascending')));
  }

  // Cells are texts, numbers, nulls or {text, value, class}.
  function makeTable(name, header, rows, tall) {
    const cell = (value, i) => {
      const given = value !== null && typeof value === 'object' ? value : { text: shown(value), value };
      const plain = given.value === null || given.value === undefined ? '' : String(given.value);
      const classes = (typeof given.value === 'number' ? 'number ' : '') + (given.class || '');
      return el(i ? 'td' : 'th', { 'data-value': plain, class: classes.trim() || null, scope: i ? null : 'row' }, given.text);
    };
    const numeric = i => rows.some(row => typeof (row[i] !== null && typeof row[i] === 'object' ? row[i].value : row[i]) === 'number');
    const heads = header.map((text, i) => el('th', { scope: 'col', 'aria-sort': 'none', class: numeric(i) ? 'number' : null },
      el('button', { type: 'button' }, text)));
    const table = el('table', { class: 'sortable' }, el('thead', null, el('tr', null, ...heads)),
      el('tbody', null, ...rows.map(row => el('tr', null, ...row.map(cell)))));
    makeSortable(table);
    return el('div', { class: tall ? 'wide tall' : 'wide', tabindex: '0', role: 'region', 'aria-label': name }, table);
  }

  function fillSelect(select, options, keep) {
    const before = select.value;
    select.replaceChildren(...options.map(([value, text]) => el('option', { value }, text)));
    if (keep && options.some(([value]) => String(value) === before)) select.value = before;
  }

  function openDialog(title, ...body) {
    byId('dialog-title').textContent = title;
    byId('dialog-body').replaceChildren(...body);
    byId('dialog').showModal();
    byId('dialog').scrollTop = 0;
    byId('dialog-title').focus();
  }

  async function copy(text, name) {
    let done = false;
    try {
      await navigator.clipboard.writeText(text);
      done = true;
    } catch { /* not allowed here: the text is shown instead */ }
    byId('copied').textContent = done ? `${name} copied` : '';
    if (done) return;
    const area = el('textarea', { readonly: true, 'aria-label': name });
    area.value = text;
    openDialog(`${name}: copy it from here`, area);
    area.select();
  }

  // ---- What is shown.
  const words = () => byId('words').value.toLowerCase().split(',').map(word => word.trim()).filter(Boolean);
  function passes(line) {
    const wanted = words(), label = line.label.toLowerCase();
    return (!wanted.length || wanted.some(word => label.includes(word)))
      && (!byId('protocol').value || line.protocol === byId('protocol').value)
      && (!byId('backbone').value || line.backbone === byId('backbone').value);
  }
  const sort = { column: null, descending: true };

  function choice() {
    const one = byId('benchmark').value;
    const benchmarks = one ? [one] : data.benchmarks;
    return { benchmarks, convention: Number(byId('convention').value), grouped: byId('grouping').value.split(' ') };
  }

  function current() {
    const chosen = choice();
    const matrix = makeMatrix(data.lines.filter(passes), data.runs, chosen);
    const column = headerOf(matrix).indexOf(sort.column);
    if (column >= 0) {
      const first = 1 + matrix.beside.length;
      const value = row => column < first ? [row.line.label, ...matrix.beside.map(key => row.line[key])][column]
        : ((row.cells[column - first] || row.mean).text).replace(/^-$/, '');
      matrix.groups.forEach(group => group.rows.sort((a, b) => compareValues(value(a), value(b), sort.descending)));
    }
    return { matrix, caption: captionOf(matrix, data.runs, chosen, data.conventions) };
  }

  function showMatrix() {
    const { matrix, caption } = current(), header = headerOf(matrix), table = byId('matrix-table');
    const focused = document.activeElement?.closest?.('#matrix-table thead button')?.textContent;
    const cell = (value, text, run) => {
      const mark = { 0: ' first', 1: ' second' }[value.rank] || '';
      const style = value.shade === null ? null : `--shade: ${value.shade}`;
      const inside = run === undefined ? text
        : el('button', { type: 'button', title: data.runs[run].hint, 'data-run': run }, text);
      return el('td', { class: `number${mark}`, style }, inside);
    };
    const heads = header.map(name => {
      const state = name === sort.column ? (sort.descending ? 'descending' : 'ascending') : 'none';
      const button = el('button', { type: 'button' }, name);
      const texts = name === 'method' || matrix.beside.includes(name);
      button.addEventListener('click', () => {
        const again = sort.column === name;
        Object.assign(sort, { column: name, descending: again ? !sort.descending : !texts });
        showMatrix();
      });
      return el('th', { scope: 'col', 'aria-sort': state, class: texts ? null : 'number' }, button);
    });
    const bodies = matrix.groups.map(group => el('tbody', null,
      ...(group.title ? [el('tr', { class: 'group' }, el('th', { colspan: header.length, scope: 'rowgroup' }, group.title))] : []),
      ...group.rows.map(row => el('tr', null, el('th', { scope: 'row' }, row.line.label),
        ...matrix.beside.map(key => el('td', null, row.line[key])),
        ...row.cells.map((value, i) => cell(value, value.text, row.line.runs[matrix.benchmarks[i]])),
        ...(matrix.benchmarks.length > 1 ? [cell(row.mean, row.meanText)] : [])))));
    table.replaceChildren(el('thead', null, el('tr', null, ...heads)), ...bodies);
    if (focused) heads.map(head => head.firstChild).find(button => button.textContent === focused)?.focus();
    byId('caption').textContent = caption;
    const rows = matrix.groups.reduce((sum, group) => sum + group.rows.length, 0);
    byId('found').textContent = `${rows} of ${data.lines.length} rows`;
    byId('copied').textContent = '';
  }

  function showDetails(number) {
    const run = data.runs[number];
    const all = el('button', { type: 'button' }, 'Classes, confusions and worst pictures');
    all.addEventListener('click', () => {
      byId('dialog').close();
      byId('run').value = number;
      showRun();
      byId('run-tools').scrollIntoView();
      byId('run').focus();
    });
    openDialog(run.title, makeTable('In short', ['what', 'value'], run.about), el('p', null, all),
      el('h3', null, 'Settings'), makeTable('Settings', ['what', 'value'], run.settings));
  }

  // ---- Class by class.
  const visibleRuns = numbers => numbers.filter(number => lineOf[number] && passes(lineOf[number]));
  const lineOf = {};
  for (const line of data.lines) for (const number of Object.values(line.runs)) lineOf[number] = line;
  let classTable = { header: [], rows: [], caption: '' };

  function showClasses() {
    const table = data.tables[Number(byId('class-benchmark').value)];
    const runs = visibleRuns(table.runs);
    const options = [['', 'no method'], ...runs.map(number => [number, data.runs[number].label])];
    for (const id of ['one', 'other']) fillSelect(byId(id), options, true);
    const [one, other] = ['one', 'other'].map(id => byId(id).value);
    const both = one !== '' && other !== '';
    const spread = k => {
      const values = runs.map(number => data.runs[number].iou[k]).filter(value => value !== null);
      return values.length > 1 ? Math.max(...values) - Math.min(...values) : null;
    };
    const difference = k => {
      const [a, b] = [one, other].map(number => data.runs[number].iou[k]);
      return a === null || b === null ? null : a - b;
    };
    const kind = value => value > 0 ? 'up' : value < 0 ? 'down' : '';
    const rows = table.order.map(k => {
      const gap = both ? difference(k) : null;
      return [table.names[k], ...(both ? [{ text: signed(gap), value: gap, class: kind(gap) }] : []), spread(k),
        ...runs.map(number => data.runs[number].iou[k])];
    });
    const order = both ? row => row[1].value === null ? -1 : Math.abs(row[1].value) : row => row[1] ?? -1;
    rows.sort((a, b) => order(b) - order(a));
    const header = ['class', ...(both ? ['difference'] : []), 'spread', ...runs.map(number => data.runs[number].label)];
    const title = `${table.benchmark}: IoU in % by class`;
    const described = both ? `; difference: ${data.runs[one].label} less ${data.runs[other].label}` : '';
    classTable = {
      header, rows: rows.map(row => row.map(cell => cell !== null && typeof cell === 'object' ? cell.text : shown(cell))),
      caption: `${title}${described}. Spread: highest less lowest.`,
    };
    byId('class-table').replaceChildren(makeTable(title, header, rows, true), el('p', { class: 'caption' }, classTable.caption));
    const pairs = runs.filter(number => data.runs[number].pairs.length).map(number => [data.runs[number].label,
      ...data.runs[number].pairs.slice(0, 3).map(([i, j, , share]) => `${table.names[i]} → ${table.names[j]}: ${shown(share)} %`),
      '', '', ''].slice(0, 4));
    byId('pairs').replaceChildren(...(pairs.length ? [el('h3', null, 'Most confused classes'),
      makeTable('Most confused classes', ['method', 'most pixels', 'second', 'third'], pairs, true),
      el('p', { class: 'caption' }, 'Ground truth → prediction: share of the class\'s labelled pixels.')] : []));
  }

  // ---- Pictures.
  const ROWS = 6;
  let more = 0;

  function shot(picture, map) {
    const layers = [el('img', { src: picture.photo, alt: '' }), ...(map ? [el('img', { src: map, alt: '' })] : [])];
    return el('span', { class: map ? 'shot covered' : 'shot' }, ...layers);
  }

  function showPictures() {
    if (!data.pictures.length) return;
    const benchmark = byId('picture-benchmark').value, order = byId('picture-order').value;
    const name = byId('picture-name').value.toLowerCase();
    const keys = { spread: p => p.spread === null ? '' : String(-p.spread), worst: p => shownKey(p.mean, 1), best: p => shownKey(p.mean, -1), image: p => p.image };
    const chosen = data.pictures
      .filter(picture => (!benchmark || picture.benchmark === benchmark) && picture.image.toLowerCase().includes(name))
      .map(picture => [picture, picture.shots.filter(s => lineOf[s.run] && passes(lineOf[s.run]))])
      .filter(([, shots]) => shots.length)
      .sort((a, b) => (order === 'image' ? 0 : b[1].length - a[1].length)
        || compareValues(keys[order](a[0]), keys[order](b[0]), false));
    const figure = (picture, title, text, map) => {
      const button = el('button', { type: 'button', 'aria-label': `${picture.image}, ${title}${text ? `, ${text}` : ''}: enlarge` }, shot(picture, map));
      button.addEventListener('click', () => openDialog(`${picture.image}: ${title}`, shot(picture, map), legend(picture)));
      return el('figure', null, button, el('figcaption', null, title, ...(text ? [el('br'), text] : [])));
    };
    const rows = chosen.slice(0, ROWS + more).map(([picture, shots]) => el('article', { class: 'picture' },
      el('h3', null, `${picture.benchmark}: ${picture.image}`),
      el('div', { class: 'shots' }, figure(picture, 'picture', '', null), figure(picture, 'ground truth', '', picture.truth),
        ...shots.map(s => figure(picture, data.runs[s.run].label, `mIoU ${shown(s.miou)}`, s.map))),
      legend(picture)));
    const button = el('button', { type: 'button' }, `More of ${chosen.length} pictures`);
    button.addEventListener('click', () => { more += ROWS; showPictures(); });
    byId('gallery').replaceChildren(...rows, ...(chosen.length > rows.length ? [button] : []),
      ...(chosen.length ? [] : [el('p', null, 'No picture is called so, or kept by the methods that are shown.')]));
  }
  const shownKey = (value, sign) => value === null ? '' : String(sign * value);
  const legend = picture => el('ul', { class: 'legend', 'aria-label': 'Classes in the ground truth' },
    ...picture.legend.map(([name, colour]) => el('li', null, el('i', { style: `background: ${colour}` }), name)),
    ...(picture.more ? [el('li', null, `and ${picture.more} more`)] : []));

  // ---- One run.
  function showRun() {
    const run = data.runs[Number(byId('run').value)];
    if (byId('run').value === '') return byId('one-run').replaceChildren();
    const names = data.tables[run.classes].names;
    const parts = [el('h3', null, 'Classes'), makeTable('Classes', ['class', 'IoU', 'Acc', 'pixels labelled', 'pixels predicted'],
      names.map((name, k) => [name, run.iou[k], run.acc[k],
        ...[run.labelled[k], run.predicted[k]].map(value => ({ text: String(value), value }))]), true)];
    if (run.pairs.length) {
      parts.push(el('h3', null, 'Worst confusions'), makeTable('Worst confusions', ['ground truth', 'prediction', 'pixels', '% of the class'],
        run.pairs.map(([i, j, pixels, share]) => [names[i], names[j], { text: String(pixels), value: pixels }, share])));
      const { classes, shares } = run.confusion;
      parts.push(el('h3', null, 'The most confused classes: % of a row\'s pixels, by prediction'), makeTable('Confusion of classes',
        ['ground truth', ...classes.map(k => names[k])], classes.map((k, row) => [names[k], ...shares[row]])));
    }
    if (run.worst) parts.push(el('h3', null, 'Worst pictures'), makeTable('Worst pictures', run.worst.header, run.worst.rows));
    parts.push(el('h3', null, 'Settings'), makeTable('Settings', ['what', 'value'], run.settings));
    return byId('one-run').replaceChildren(...parts);
  }

  // ---- Begin.
  const unique = key => [...new Set(data.lines.map(line => line[key]))];
  const all = values => [['', 'all'], ...values.map(value => [value, value])];
  fillSelect(byId('benchmark'), all(data.benchmarks));
  fillSelect(byId('protocol'), all(unique('protocol')));
  fillSelect(byId('backbone'), all(unique('backbone')));
  fillSelect(byId('class-benchmark'), data.tables.map((table, i) => [i, table.benchmark]));
  fillSelect(byId('run'), [['', 'none'], ...data.runs.map((run, i) => [i, run.title])]);
  if (data.pictures.length) fillSelect(byId('picture-benchmark'), all([...new Set(data.pictures.map(picture => picture.benchmark))]));
  document.querySelectorAll('table.sortable').forEach(makeSortable);
  document.querySelectorAll('.tools, .hint').forEach(node => { node.hidden = false; });

  const showAll = () => { showMatrix(); showClasses(); showPictures(); };
  byId('tools').addEventListener('submit', event => event.preventDefault());
  for (const id of ['words', 'protocol', 'backbone']) byId(id).addEventListener('input', showAll);
  byId('benchmark').addEventListener('input', () => {
    const name = byId('benchmark').value, place = data.tables.findIndex(table => table.benchmark === name);
    if (place >= 0) byId('class-benchmark').value = place;
    if (data.pictures.some(picture => picture.benchmark === name) || !name) {
      const select = byId('picture-benchmark');
      if (select) select.value = name;
    }
    showAll();
  });
  for (const id of ['grouping', 'convention']) byId(id).addEventListener('input', showMatrix);
  for (const id of ['class-benchmark', 'one', 'other']) byId(id).addEventListener('input', showClasses);
  for (const id of ['picture-benchmark', 'picture-order', 'picture-name']) byId(id)?.addEventListener('input', () => { more = 0; showPictures(); });
  byId('run').addEventListener('input', showRun);
  byId('matrix-table').addEventListener('click', event => {
    const button = event.target.closest('button[data-run]');
    if (button) showDetails(Number(button.dataset.run));
  });
  byId('close').addEventListener('click', () => byId('dialog').close());
  byId('dialog').addEventListener('click', event => { if (event.target === byId('dialog')) byId('dialog').close(); });
  document.querySelectorAll('[data-copy]').forEach(button => button.addEventListener('click', () => {
    const { matrix, caption } = current();
    copy(FORMATS[button.dataset.copy](matrix, caption, data.latex), button.textContent);
  }));
  document.querySelectorAll('[data-copy-classes]').forEach(button => button.addEventListener('click', () =>
    copy(TABLES[button.dataset.copyClasses](classTable.header, classTable.rows, classTable.caption, data.latex), button.textContent)));
  window.addEventListener('beforeprint', () => document.querySelectorAll('details').forEach(node => { node.open = true; }));
  showAll();
}

start();
