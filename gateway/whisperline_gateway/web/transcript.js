// The text on the page: finals, and below them the partial that will become the next one.

const clock = (seconds) =>
  `${String(Math.floor(seconds / 60)).padStart(2, "0")}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;

export class Transcript {
  #lines = [];
  #line = null; // the element of the last line while the speaker's turn goes on

  constructor(finals, partial) {
    this.finals = finals;
    this.partialLine = partial;
  }

  get text() {
    return this.#lines.join("\n");
  }

  clear() {
    this.#lines = [];
    this.#line = null;
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

  // Show a final: in a line of its own, or in that of the turn which it continues.
  final({ index, startS, text, delayS, endsTurn }) {
    this.partial(null);
    const continued = this.#line;
    if (text) this.#keepInView(() => (continued ? this.#continue(continued, text) : this.#begin(index, startS, text)));
    if (text && delayS !== null) {
      this.#line.querySelector(".delay").textContent = `+${delayS.toFixed(2)} s`;
    }
    if (endsTurn) this.#line = null;
  }

  #begin(index, startS, text) {
    this.#lines.push(text);
    this.#line = document.createElement("li");
    this.#line.className = "line";
    this.#line.dataset.index = index;
    this.#line.append(part("time", "", clock(startS)), part("span", "text", text), part("span", "delay", ""));
    this.finals.append(this.#line);
  }

  #continue(line, text) {
    this.#lines.push(`${this.#lines.pop()} ${text}`);
    line.querySelector(".text").textContent = this.#lines.at(-1);
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
