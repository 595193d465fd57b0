// The text on the page: finals, and below them the partial that will become the next one.

const clock = (seconds) =>
  `${String(Math.floor(seconds / 60)).padStart(2, "0")}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;

export class Transcript {
  #lines = [];

  constructor(finals, partial) {
    this.finals = finals;
    this.partialLine = partial;
  }

  get text() {
    return this.#lines.join("\n");
  }

  clear() {
    this.#lines = [];
    this.finals.replaceChildren();
    this.partial(null);
  }

  // Show a partial, or hide it if `detail` is null.
  partial(detail) {
    this.partialLine.hidden = !detail?.text;
    if (!detail) return;
    this.#keepInView(() => {
      this.partialLine.querySelector("time").textContent = clock(detail.startS);
      this.partialLine.querySelector(".stable").textContent = detail.stable;
      this.partialLine.querySelector(".unstable").textContent = detail.text.slice(detail.stable.length);
    });
  }

  final({ index, startS, text, delayS }) {
    this.partial(null);
    if (!text) return;
    this.#lines.push(text);
    const line = document.createElement("li");
    line.className = "line";
    line.dataset.index = index;
    line.append(part("time", "", clock(startS)), part("span", "text", text));
    if (delayS !== null) line.append(part("span", "delay", `+${delayS.toFixed(2)} s`));
    this.#keepInView(() => this.finals.append(line));
  }

  // Scroll with the text, unless the reader has scrolled up.
  #keepInView(change) {
    const root = document.documentElement;
    const following = root.scrollHeight - root.scrollTop - root.clientHeight < 80;
    change();
    if (following) root.scrollTop = root.scrollHeight;
  }
}

function part(name, className, text) {
  const element = document.createElement(name);
  element.className = className;
  element.textContent = text;
  return element;
}
