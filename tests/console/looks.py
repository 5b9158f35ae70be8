"""What is looked for in a page, in the manner of axe: faults for those who hear it, contrast for those who see it."""

# Gives a list of sentences; empty where the page is in order.
FAULTS = r"""() => {
  const faults = [];
  const labelled = e => (e.getAttribute('aria-labelledby') || '').split(' ').filter(Boolean)
    .map(id => (document.getElementById(id) || {textContent: ''}).textContent).join(' ');
  const name = e => (e.getAttribute('aria-label') || labelled(e) || e.textContent || '').trim();
  if (!document.documentElement.lang) faults.push('no lang');
  if (!document.title.trim()) faults.push('no title');
  if (document.querySelectorAll('h1').length !== 1) faults.push('not one h1');
  for (const landmark of ['header', 'main'])
    if (document.querySelectorAll(`body > ${landmark}`).length !== 1) faults.push(`not one ${landmark}`);
  let level = 0;
  for (const heading of document.querySelectorAll('h1, h2, h3')) {
    const its = Number(heading.tagName[1]);
    if (its > level + 1) faults.push(`heading leaps: ${heading.textContent}`);
    if (!heading.textContent.trim()) faults.push('empty heading');
    level = its;
  }
  for (const field of document.querySelectorAll('input:not([type=hidden]), select, textarea'))
    if (![...(field.labels || [])].some(label => label.textContent.trim())) faults.push(`no label: ${field.name}`);
  for (const active of document.querySelectorAll('a[href], button, summary'))
    if (!name(active)) faults.push(`no name: ${active.outerHTML}`);
  for (const picture of document.querySelectorAll('svg, img'))
    if (picture.getAttribute('aria-hidden') !== 'true' && !name(picture)) faults.push('picture without words');
  for (const table of document.querySelectorAll('table')) {
    if (!(table.caption && table.caption.textContent.trim()) && !table.getAttribute('aria-labelledby'))
      faults.push('table without caption');
    for (const head of table.querySelectorAll('th'))
      if (!head.scope) faults.push(`th without scope: ${head.textContent}`);
  }
  for (const region of document.querySelectorAll('section, nav, [role=region], [role=group]'))
    if (!region.getAttribute('aria-label') && !labelled(region)) faults.push(`no name: ${region.tagName}`);
  for (const scrolls of document.querySelectorAll('.wide'))
    if (scrolls.tabIndex !== 0) faults.push('what scrolls cannot be reached by the keyboard');
  for (const attribute of ['aria-labelledby', 'aria-describedby', 'for'])
    for (const e of document.querySelectorAll(`[${attribute}]`))
      for (const id of e.getAttribute(attribute).split(' '))
        if (!document.getElementById(id)) faults.push(`${attribute} leads nowhere: ${id}`);
  const ids = [...document.querySelectorAll('[id]')].map(e => e.id);
  for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) faults.push(`id twice: ${id}`);
  for (const e of document.querySelectorAll('[style], script[src], body script, head script ~ script'))
    faults.push(`against the policy: ${e.tagName}`);
  return faults;
}"""

# Computes the contrast of every text against what lies behind it (WCAG 2, 1.4.3); gives those below 4.5.
LOW_CONTRAST = r"""() => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgba = colour => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = (top, below) => top.slice(0, 3).map((part, i) => part * top[3] + below[i] * (1 - top[3]));
  const behind = e => {
    const layers = [];
    for (let each = e; each; each = each.parentElement) layers.push(rgba(getComputedStyle(each).backgroundColor));
    return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255]);
  };
  const luminance = rgb => {
    const [r, g, b] = rgb.map(part => part / 255).map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const found = new Set();
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walk.nextNode(); node; node = walk.nextNode()) {
    const e = node.parentElement;
    if (!node.textContent.trim() || !e.checkVisibility() || e.closest('svg, .unseen, .skip')) continue;
    const ground = behind(e);
    const [a, b] = [luminance(over(rgba(getComputedStyle(e).color), ground)), luminance(ground)].sort((x, y) => y - x);
    const contrast = (a + 0.05) / (b + 0.05);
    if (contrast < 4.5) found.add(`${contrast.toFixed(2)}: ${e.tagName} ${node.textContent.trim().slice(0, 30)}`);
  }
  return [...found];
}"""
