'use strict';
// From a word to its vision tokens and back, for each conversation or picture, by pointer and by arrow keys.
for (const one of document.querySelectorAll('.seen')) {
  const text = one.querySelector('.text');
  const pages = one.querySelector('.sheets');
  const status = one.querySelector('output');
  const sheets = [...one.querySelectorAll('.sheet')];
  const words = text ? [...text.querySelectorAll('[data-t]:not(.more)')] : [];
  const pieces = new Map();  // of each token
  let lit = [];

  const tokensOf = (piece) => piece.dataset.t.split(' ').map(Number);
  const sheetOf = (token) => sheets.find((sheet) => token >= +sheet.dataset.first && token - sheet.dataset.first < sheet.dataset.side ** 2);
  for (const piece of text ? text.querySelectorAll('[data-t]') : []) {
    for (const token of tokensOf(piece)) pieces.set(token, [...(pieces.get(token) ?? []), piece]);
  }

  // A word whose letters lie under several tokens is several pieces; all but the first have the class "more".
  const wordOf = (piece) => {
    while (piece.classList.contains('more')) piece = piece.previousElementSibling;
    const word = [piece];
    while (word.at(-1).nextElementSibling?.classList.contains('more')) word.push(word.at(-1).nextElementSibling);
    return word;
  };
  const place = (token) => {
    const sheet = sheetOf(token), number = token - sheet.dataset.first, side = +sheet.dataset.side;
    return `page ${sheet.dataset.page}, row ${Math.floor(number / side) + 1}, column ${number % side + 1}`;
  };
  const show = (chosen, tokens, said) => {
    lit.forEach((piece) => piece.classList.remove('lit'));
    chosen.forEach((piece) => piece.classList.add('lit'));
    lit = chosen;
    for (const sheet of sheets) {
      const side = +sheet.dataset.side;
      const here = tokens.filter((token) => sheetOf(token) === sheet).map((token) => token - sheet.dataset.first);
      sheet.querySelector('.lit').setAttribute('d', here.map((t) => `M${t % side} ${Math.floor(t / side)}h1v1h-1z`).join(''));
    }
    status.textContent = said;
  };
  const reveal = (box, item) => {
    const outer = box.getBoundingClientRect(), inner = item.getBoundingClientRect();
    if (inner.top < outer.top || inner.bottom > outer.bottom) box.scrollTop += inner.top - outer.top - outer.height / 3;
  };
  const showWord = (piece) => {
    const word = wordOf(piece), tokens = [...new Set(word.flatMap(tokensOf))];
    show(word, tokens, `“${word.map((part) => part.textContent).join('')}”: ${tokens.map(place).join('; ')}`);
    reveal(pages, sheetOf(tokens[0]).querySelector('.lit'));
  };
  const showToken = (sheet, number) => {
    const token = +sheet.dataset.first + number, under = pieces.get(token) ?? [];
    const blank = sheet.dataset.kept[number] === '0';
    const goesOn = (part) => part.classList.contains('more') && under.includes(part.previousElementSibling);
    const letters = under.map((part) => (goesOn(part) ? '' : ' ') + part.textContent).join('').trim();
    sheet.dataset.at = number;
    show(under, [token], `${place(token)}: ${blank ? sheet.dataset.blank : letters ? `“${letters}”` : 'ink'}`);
    if (under.length) reveal(text, under[0]);
  };

  let at = 0;
  const step = (event, moves, last, from, go) => {
    const to = { ...moves, Home: -from, End: last - from }[event.key];
    if (to === undefined || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    go(Math.min(Math.max(from + to, 0), last));
  };
  const goTo = (index) => {
    at = index;
    showWord(words[at]);
    reveal(text, words[at]);
  };
  if (words.length) {
    text.addEventListener('pointerover', (event) => {
      const piece = event.target.closest('[data-t]');
      if (!piece) return;
      at = words.indexOf(wordOf(piece)[0]);
      showWord(piece);
    });
    text.addEventListener('focus', () => { if (text.matches(':focus-visible')) goTo(at); });
    text.addEventListener('keydown', (event) => step(event, { ArrowLeft: -1, ArrowRight: 1 }, words.length - 1, at, goTo));
  }
  for (const sheet of sheets) {
    const side = +sheet.dataset.side;
    sheet.addEventListener('pointermove', (event) => {
      const box = sheet.getBoundingClientRect();
      const cell = (share) => Math.min(Math.max(Math.floor(share * side), 0), side - 1);
      showToken(sheet, cell((event.clientY - box.top) / box.height) * side + cell((event.clientX - box.left) / box.width));
    });
    sheet.addEventListener('focus', () => { if (sheet.matches(':focus-visible')) showToken(sheet, +sheet.dataset.at); });
    sheet.addEventListener('keydown', (event) => step(
      event, { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -side, ArrowDown: side }, side * side - 1, +sheet.dataset.at,
      (number) => { showToken(sheet, number); reveal(pages, sheet.querySelector('.lit')); },
    ));
  }
}
