// Elements in one expression.

/** An element with attributes and what is in it; text stays text. */
export function element<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Record<string, string> = {},
  ...inside: (Node | string)[]
): HTMLElementTagNameMap[K] {
  const made = document.createElement(tag)
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value)
  made.append(...inside)
  return made
}

/** A button that does something. */
export function button(text: string, label: string, act: () => void): HTMLButtonElement {
  const made = element("button", { type: "button" }, text)
  if (label) {
    made.setAttribute("aria-label", label)
    made.title = label
  }
  made.addEventListener("click", act)
  return made
}

/** Sets the text only if it is another, so that nothing is drawn or read aloud twice. */
export function say(where: Element, text: string): void {
  if (where.textContent !== text) where.textContent = text
}
