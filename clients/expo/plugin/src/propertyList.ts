/** Apple's property lists, as far as the extension has any. */

export type Property = string | readonly Property[] | { readonly [key: string]: Property };

const HEAD = `<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0">
`;

export function propertyList(root: Property): string {
  return `${HEAD}${written(root, "  ")}</plist>\n`;
}

function written(value: Property, indent: string): string {
  if (typeof value === "string") {
    return `${indent}<string>${escaped(value)}</string>\n`;
  }
  const deeper = `${indent}  `;
  if (Array.isArray(value)) {
    return `${indent}<array>\n${value.map((each: Property) => written(each, deeper)).join("")}${indent}</array>\n`;
  }
  const members = Object.entries(value as { readonly [key: string]: Property });
  const lines = members.map(([key, each]) => `${deeper}<key>${escaped(key)}</key>\n${written(each, deeper)}`);
  return `${indent}<dict>\n${lines.join("")}${indent}</dict>\n`;
}

function escaped(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}
