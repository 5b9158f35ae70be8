"""What is looked for in the preference page beside what `tests/console/looks.py` finds; each gives a list of faults."""

# What sticks out of the window or is cut off; a list is as wide as it wants, its longest line is not shown whole.
CUT = r"""() => [...document.querySelectorAll('body *')].flatMap(e => {
  if (e.closest('.unseen, svg, option, select')) return [];
  const box = e.getBoundingClientRect();
  if (!box.width) return [];
  const faults = [];
  if (box.left < -0.5 || box.right > innerWidth + 0.5) faults.push('sticks out');
  if (e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).display !== 'inline') faults.push('cut');
  return faults.map(fault => `${fault}: ${e.tagName} ${e.className} ${e.textContent.trim().slice(0, 40)}`);
})"""

# Edges of fields and buttons against what lies around them (WCAG 2, 1.4.11); gives those below 3.
PALE_EDGES = r"""() => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const luminance = colour => {
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map(part => part / 255)
      .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = e => {
    for (let each = e.parentElement; each; each = each.parentElement) {
      const colour = getComputedStyle(each).backgroundColor;
      if (colour !== 'rgba(0, 0, 0, 0)') return colour;
    }
    return 'white';
  };
  const fields = 'input:not([type=hidden], [type=checkbox], [type=radio]), select, button, .screen';
  return [...document.querySelectorAll(fields)].filter(e => e.checkVisibility()).flatMap(e => {
      const [a, b] = [getComputedStyle(e).borderTopColor, ground(e)].map(luminance).sort((x, y) => y - x);
      const contrast = (a + 0.05) / (b + 0.05);
      return contrast < 3 ? [`${contrast.toFixed(2)}: ${e.tagName} ${e.name || e.className}`] : [];
    });
}"""


# What is pressed, smaller than a finger wants (WCAG 2.2, 2.5.8); a tick's label is pressed as well.
SMALL_TARGETS = r"""() => [...document.querySelectorAll('button, .button, select, input:not([type=hidden])')]
  .filter(e => e.checkVisibility())
  .map(e => [(e.closest('label') || e).getBoundingClientRect().height, e])
  .filter(([height]) => height < 24).map(([height, e]) => `${height}: ${e.name || e.textContent}`)"""

# What has the keyboard's focus.
FOCUSED = r"""() => (e => ({
  name: e.name && e.tagName !== 'BUTTON' ? e.name : e.getAttribute('href') || e.textContent.trim(),
  ring: getComputedStyle(e).outlineStyle,
  top: e.getBoundingClientRect().top,
  height: innerHeight,
}))(document.activeElement)"""
