/* Two pictures behind one divider, with zoom and pan: the view of the page and of reports. */

export class Viewer {
  /* `view` holds .pane.before img, .pane.after .under and .over, input[type=range] and .divider;
     `onzoom` is told the zoom in percent, and `room` gives the pixels kept free around. */
  constructor(view, { onzoom = () => {}, room = () => ({ side: 0, below: 0 }) } = {}) {
    this.view = view;
    this.onzoom = onzoom;
    this.room = room;
    this.range = view.querySelector("input[type=range]");
    this.images = [...view.querySelectorAll(".pane img")];
    [this.scale, this.x, this.y, this.width, this.height] = [1, 0, 0, 0, 0];
    this.fitted = true;
    this.fingers = new Map();
    this.dragging = null; // "split" or "pan"
    this.listen();
    new ResizeObserver(() => {
      if (!this.width) return;
      if (this.fitted) this.fit();
      else this.move();
    }).observe(view);
  }

  /* Say how large the pictures are, in pixels; both are shown at this size. */
  sized(width, height) {
    [this.width, this.height] = [width, height];
    for (const image of this.images) {
      image.style.width = `${width}px`;
      image.style.height = `${height}px`;
    }
    this.fit();
  }

  split(percent) {
    const at = Math.min(100, Math.max(0, percent));
    this.range.value = at;
    this.range.setAttribute("aria-valuetext", `${Math.round(at)}% left, ${Math.round(100 - at)}% right`);
    this.view.style.setProperty("--share", at / 100);
  }

  /* 1:1 is a pixel of the picture on a pixel of the screen, also on fine screens. */
  get unit() {
    return 1 / devicePixelRatio;
  }

  get fitting() {
    const { side, below } = this.room();
    return Math.min(
      (this.view.clientWidth - 2 * side) / this.width,
      (this.view.clientHeight - side - below) / this.height,
      8 * this.unit,
    );
  }

  fit() {
    this.scale = this.fitting;
    this.fitted = true;
    this.move();
  }

  full() {
    this.zoomTo(this.unit);
  }

  zoomTo(scale, x = this.view.clientWidth / 2, y = this.view.clientHeight / 2) {
    const least = Math.min(this.fitting, this.unit);
    const next = Math.min(32 * this.unit, Math.max(least, scale));
    this.x = x - ((x - this.x) * next) / this.scale;
    this.y = y - ((y - this.y) * next) / this.scale;
    this.scale = next;
    this.fitted = false;
    if (Math.abs(next - this.fitting) < 1e-4) this.fit();
    else this.move();
  }

  pan(x, y) {
    this.x += x;
    this.y += y;
    this.fitted = false;
    this.move();
  }

  move() {
    const { clientWidth, clientHeight } = this.view;
    const { side, below } = this.room();
    const within = (at, size, room, spare) =>
      size <= room - spare ? (room - spare - size) / 2 : Math.min(0, Math.max(room - size, at));
    const [width, height] = [this.width * this.scale, this.height * this.scale];
    const spare = height <= clientHeight - below - side ? below - side : 0;
    this.x = within(this.x, width, clientWidth, 0);
    this.y = within(this.y, height, clientHeight, spare);
    const edges = {
      left: this.x,
      top: this.y,
      right: clientWidth - this.x - width,
      bottom: clientHeight - this.y - height,
    };
    for (const [edge, at] of Object.entries(edges)) this.view.style.setProperty(`--${edge}`, `${Math.max(0, at)}px`);
    for (const image of this.images) image.style.transform = `translate(${this.x}px, ${this.y}px) scale(${this.scale})`;
    this.view.classList.toggle("zoomed", width > clientWidth + 1 || height > clientHeight + 1);
    this.view.classList.toggle("large", this.scale >= 4 * this.unit);
    this.onzoom(Math.round((this.scale / this.unit) * 100));
  }

  local(event) {
    const box = this.view.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  /* Where the divider would stand, in percent of what is seen of the pictures. */
  share(x) {
    const left = Math.max(0, this.x);
    const seen = Math.min(this.view.clientWidth, this.x + this.width * this.scale) - left;
    return ((x - left) / seen) * 100;
  }

  listen() {
    const { view, fingers } = this;
    view.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      view.setPointerCapture(event.pointerId);
      fingers.set(event.pointerId, this.local(event));
      const onDivider = view.querySelector(".divider").contains(event.target);
      this.dragging = fingers.size < 2 && (onDivider || !view.classList.contains("zoomed")) ? "split" : "pan";
      view.classList.toggle("panning", this.dragging === "pan");
      if (this.dragging === "split") this.split(this.share(this.local(event)[0]));
    });
    view.addEventListener("pointermove", (event) => {
      const before = fingers.get(event.pointerId);
      if (!before) return;
      const now = this.local(event);
      if (fingers.size === 2) {
        const other = [...fingers].find(([id]) => id !== event.pointerId)[1];
        const apart = (a) => Math.hypot(a[0] - other[0], a[1] - other[1]) || 1;
        this.zoomTo((this.scale * apart(now)) / apart(before), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
      } else if (this.dragging === "split") {
        this.split(this.share(now[0]));
      } else {
        this.pan(now[0] - before[0], now[1] - before[1]);
      }
      fingers.set(event.pointerId, now);
    });
    for (const kind of ["pointerup", "pointercancel"]) {
      view.addEventListener(kind, (event) => {
        fingers.delete(event.pointerId);
        view.classList.remove("panning");
      });
    }
    view.addEventListener("dblclick", (event) => {
      if (this.fitted) this.zoomTo(Math.max(this.unit, 2 * this.fitting), ...this.local(event));
      else this.fit();
    });
    const step = 60;
    const keys = {
      "+": () => this.zoomTo(this.scale * 1.25),
      "=": () => this.zoomTo(this.scale * 1.25),
      "-": () => this.zoomTo(this.scale / 1.25),
      0: () => this.fit(),
      1: () => this.full(),
      ArrowLeft: () => this.pan(step, 0),
      ArrowRight: () => this.pan(-step, 0),
      ArrowUp: () => this.pan(0, step),
      ArrowDown: () => this.pan(0, -step),
    };
    view.addEventListener("keydown", (event) => {
      if (event.target !== view || event.ctrlKey || event.metaKey || event.altKey || !keys[event.key]) return;
      event.preventDefault();
      keys[event.key]();
    });
    this.range.addEventListener("input", () => this.split(this.range.valueAsNumber));
  }

  /* Zoom with the wheel; where the page scrolls, only with Ctrl held, as a pinch comes. */
  wheel(always) {
    this.view.addEventListener(
      "wheel",
      (event) => {
        if (!always && !event.ctrlKey) return;
        event.preventDefault();
        this.zoomTo(this.scale * Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.0015)), ...this.local(event));
      },
      { passive: false },
    );
  }
}
