// A stand-in for a browser: as much of one as a report's scripts touch. Runs the scripts of the page that it is given and
// prints what they have made. It paints nothing: how a page looks is for eyes, by `cargo xtask bench report`.
"use strict";

const { readFileSync } = require("node:fs");
const vm = require("node:vm");

const page = readFileSync(process.argv[2], "utf8");
const scripts = [...page.matchAll(/<script( type="application\/json" id="data")?>([^]*?)<\/script>/g)];
const calls = {};

class Element {
  constructor(name) {
    Object.assign(this, { name, children: [], parentNode: null, dataset: {}, attributes: {}, listeners: {}, hidden: false, text: "" });
    this.style = {};
    this.classes = new Set();
    this.classList = { add: (c) => this.classes.add(c), remove: (c) => this.classes.delete(c), contains: (c) => this.classes.has(c) };
  }
  get clientWidth() { return 960; }
  get childNodes() { return this.children; }
  get firstChild() { return this.children[0]; }
  get textContent() { return this.text + this.children.map((c) => c.textContent ?? c).join(""); }
  set textContent(text) { this.text = String(text); this.children = [{ nodeValue: "", textContent: "" }]; }
  set className(names) { names.split(" ").forEach((name) => this.classes.add(name)); }
  append(...nodes) { nodes.forEach((node) => this.insertBefore(node)); }
  appendChild(node) { return this.insertBefore(node); }
  insertBefore(node, before) {
    const at = this.children.indexOf(before);
    this.children.splice(at < 0 ? this.children.length : at, 0, node);
    if (node instanceof Element) node.parentNode = this;
    return node;
  }
  after(node) { this.parentNode.append(node); }
  remove() {}
  setAttribute(key, value) {
    this.attributes[key] = value;
    if (key === "class") this.className = value;
  }
  addEventListener(event, listener) { (this.listeners[event] ??= []).push(listener); }
  removeEventListener() {}
  fire(event, more) {
    const made = { key: "", button: 0, ctrlKey: false, metaKey: false, target: this, currentTarget: this, preventDefault() {}, stopPropagation() {}, ...more };
    (this.listeners[event] ?? []).forEach((listener) => listener(made));
  }
  click() { this.fire("click"); }
  getBoundingClientRect() { return { left: 0, top: 0, width: 900, height: 200 }; }
  *all() {
    for (const child of this.children) if (child instanceof Element) { yield child; yield* child.all(); }
  }
  // `.class`, `name`, and one within the other.
  querySelectorAll(selector) {
    return selector.split(" ").reduce((within, word) => {
      const fits = (e) => (word[0] === "." ? e.classes.has(word.slice(1)) : e.name === word);
      return within.flatMap((e) => [...e.all()].filter(fits));
    }, [this]);
  }
  querySelector(selector) { return this.querySelectorAll(selector)[0]; }
  getContext() {
    const canvas = { canvas: this, measureText: (text) => ({ width: 7 * text.length }) };
    const count = (name) => () => { calls[name] = (calls[name] ?? 0) + 1; };
    return new Proxy(canvas, { get: (own, name) => (name in own ? own[name] : count(name)) });
  }
}

const root = new Element("html");
const main = new Element("main");
root.append(main);
for (const [, at] of page.matchAll(/<section class="part" data-part="(\d+)">/g)) {
  const part = new Element("section");
  part.setAttribute("class", "part");
  part.dataset.part = at;
  const charts = new Element("div");
  charts.setAttribute("class", "charts");
  part.append(charts);
  main.append(part);
}
const data = { textContent: scripts.find((script) => script[1])[2] };
const document = Object.assign(new Element("#document"), {
  documentElement: root, createElement: (name) => new Element(name), getElementById: (id) => (id === "data" ? data : null),
});
document.append(root);
class Path2D { constructor() { return new Proxy(this, { get: () => () => {} }); } }
const sandbox = {
  document, Path2D, HTMLElement: Element, performance, setTimeout, queueMicrotask, console,
  devicePixelRatio: 1, navigator: { language: "en-US" },
  getComputedStyle: () => ({ getPropertyValue: () => " #24598f" }),
  matchMedia: () => ({ addEventListener() {}, removeEventListener() {} }),
  addEventListener() {}, removeEventListener() {}, dispatchEvent() {}, CustomEvent: class {},
  requestAnimationFrame: (run) => setTimeout(run, 0),
  ResizeObserver: class { observe() {} },
};
sandbox.window = sandbox;
vm.createContext(sandbox);
for (const [, isData, text] of scripts) if (!isData) vm.runInContext(text, sandbox);

// What a person does, after what the scripts put off has run.
setTimeout(() => {
  const charts = root.querySelectorAll("figure");
  const painted = { ...calls };
  const plot = root.querySelectorAll(".plot")[0];
  plot.fire("keydown", { key: "ArrowRight" });
  const spoken = root.querySelector(".heard").textContent;
  plot.fire("keydown", { key: "+" });
  const one = root.querySelectorAll("input")[1];
  one?.onchange();
  root.querySelector(".u-legend").querySelectorAll("th")[1].fire("keydown", { key: "Enter" });
  setTimeout(() => {
    const hidden = root.querySelectorAll(".whole").map((button) => button.hidden);
    const pressed = root.querySelector(".u-legend").querySelectorAll("th")[1].attributes["aria-pressed"];
    console.log(JSON.stringify({
      titles: charts.map((figure) => figure.children[0].children[0]),
      canvases: root.querySelectorAll("canvas").length,
      cells: painted.fillRect, lines: painted.stroke, spoken, zoomed: hidden.every((is) => is === false), pressed,
      drawn: Number(root.dataset.drawnMs) >= 0,
    }));
  }, 0);
}, 0);
