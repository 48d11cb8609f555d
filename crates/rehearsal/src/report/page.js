// Draws the charts of a report. The figures stand in the block `data`, column by column; uPlot draws, and the colours are
// those of the style sheet, so that they follow its light and dark.
(function () {
  "use strict";

  const parts = JSON.parse(document.getElementById("data").textContent);
  const NARROW = 560;

  // Colours, looked up once per theme: charts ask for them at each drawing.
  let known = new Map();
  const style = getComputedStyle(document.documentElement);
  function colour(name) {
    if (!known.has(name)) known.set(name, style.getPropertyValue("--" + name).trim());
    return known.get(name);
  }

  // Figures, as in the tables.
  const threeDigits = (v) => (v === 0 ? "0" : v < 9.995 ? v.toFixed(2) : v < 99.95 ? v.toFixed(1) : thousands(v));
  const thousands = (v) => Math.round(v).toString().replace(/\B(?=(\d{3})+$)/g, ",");
  const short = (v) => parseFloat(v.toPrecision(3)).toLocaleString("en-US", { maximumSignificantDigits: 3 });
  const two = (n) => String(n).padStart(2, "0");
  function clock(seconds) {
    const s = Math.floor(seconds);
    const hours = Math.floor(s / 3600), minutes = Math.floor(s / 60) % 60;
    return hours > 0 ? `${hours}:${two(minutes)}:${two(s % 60)}` : `${minutes}:${two(s % 60)}`;
  }
  function time(us, digits) {
    if (us < 1000) return digits(us) + " µs";
    return us < 1e6 ? digits(us / 1e3) + " ms" : digits(us / 1e6) + " s";
  }
  // By unit: beside an axis, and at the cursor.
  const UNITS = {
    per_second: { axis: short, value: (v) => threeDigits(v) + "/s" },
    us: { axis: (v) => time(v, short), value: (v) => time(v, (x) => (x < 1 ? "0" : threeDigits(x))) },
    share: { axis: (v) => short(v * 100) + " %", value: (v) => (v * 100).toFixed(v < 0.1 ? 1 : 0) + " %" },
    cores: { axis: short, value: threeDigits },
    plain: { axis: short, value: threeDigits },
    members: { axis: (v) => (Number.isInteger(v) ? short(v) : ""), value: (v) => short(v) },
  };

  const SECONDS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400];
  const FONT = '12px system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif';
  const DASHES = [[], [6, 3], [2, 2], [9, 3, 2, 3]];

  function element(name, attributes, ...children) {
    const made = document.createElement(name);
    for (const key in attributes) made.setAttribute(key, attributes[key]);
    made.append(...children);
    return made;
  }

  // One record: its charts share their time, their cursor and what is looked at closer.
  function drawPart(place, data, key) {
    const { step, columns } = data;
    const end = columns * step;
    const xs = Array.from({ length: columns }, (_, i) => (i + 0.5) * step);
    const plots = [];
    const buttons = [];
    const heard = element("p", { class: "heard", "aria-live": "polite" });
    place.append(heard);

    const zoomed = (u) => u.scales.x.min > 0 || u.scales.x.max < end;
    function look(min, max) {
      for (const u of plots) u.setScale("x", { min: Math.max(0, min), max: Math.min(end, max) });
    }

    // Phases as bands, events as numbered lines, in every chart.
    const marks = {
      drawClear(u) {
        const { ctx, bbox } = u;
        ctx.save();
        ctx.fillStyle = colour("band");
        data.phases.forEach((phase, i) => {
          if (i % 2 === 0) return;
          const until = i + 1 < data.phases.length ? data.phases[i + 1].at : end;
          const [from, to] = within(u, phase.at, until);
          if (to > from) ctx.fillRect(from, bbox.top, to - from, bbox.height);
        });
        ctx.restore();
      },
      draw(u) {
        const { ctx, bbox } = u;
        const ratio = uPlot.pxRatio;
        ctx.save();
        ctx.strokeStyle = ctx.fillStyle = colour("mark");
        ctx.font = `600 ${11 * ratio}px system-ui, sans-serif`;
        ctx.textAlign = "center";
        ctx.textBaseline = "bottom";
        ctx.lineWidth = ratio;
        ctx.setLineDash([3 * ratio, 3 * ratio]);
        let free = -Infinity;
        data.events.forEach((event, i) => {
          if (event.at < u.scales.x.min || event.at > u.scales.x.max) return;
          const x = Math.round(u.valToPos(event.at, "x", true)) + 0.5;
          ctx.beginPath();
          ctx.moveTo(x, bbox.top);
          ctx.lineTo(x, bbox.top + bbox.height);
          ctx.stroke();
          // Numbers that would run into each other are left out: the lines stay, and the list below has all.
          const name = String(i + 1);
          const half = ctx.measureText(name).width / 2 + 2 * ratio;
          if (x - half > free) {
            ctx.fillText(name, x, bbox.top - ratio);
            free = x + half;
          }
        });
        ctx.restore();
      },
    };
    function within(u, from, to) {
      const { left, width } = u.bbox;
      const hold = (x) => Math.min(left + width, Math.max(left, u.valToPos(x, "x", true)));
      return [hold(from), hold(to)];
    }
    function names(u) {
      const { ctx, bbox } = u;
      const ratio = uPlot.pxRatio;
      ctx.save();
      ctx.fillStyle = colour("soft");
      ctx.font = `${11 * ratio}px system-ui, sans-serif`;
      ctx.textAlign = "left";
      ctx.textBaseline = "top";
      data.phases.forEach((phase, i) => {
        const until = i + 1 < data.phases.length ? data.phases[i + 1].at : end;
        const [from, to] = within(u, phase.at, until);
        if (ctx.measureText(phase.text).width + 10 * ratio < to - from)
          ctx.fillText(phase.text, from + 5 * ratio, bbox.top + 4 * ratio);
      });
      ctx.restore();
    }

    // Of a scale that grows by decades: these, and what is between them where there are few.
    function decades(u, axis, min, max) {
      const between = max / min < 300 ? [1, 2, 5] : [1];
      const at = [];
      for (let decade = Math.floor(Math.log10(min)); decade <= Math.log10(max); decade++)
        for (const times of between) {
          const value = times * Math.pow(10, decade);
          if (value >= min && value <= max) at.push(value);
        }
      return at;
    }
    function axes(unit, width, byDecades) {
      const common = {
        stroke: () => colour("soft"), font: FONT,
        grid: { stroke: () => colour("grid"), width: 1 }, ticks: { show: false },
      };
      return [
        { ...common, incrs: SECONDS, space: 60, size: 26, values: (u, at) => at.map(clock) },
        { ...common, size: width < NARROW ? 50 : 60, space: 28, ...(byDecades ? { splits: decades, filter: (u, at) => at } : {}),
          values: (u, at) => at.map((v) => (v == null ? "" : UNITS[unit].axis(v))) },
      ];
    }

    // A chart with its title, in a figure that takes the keyboard. `options` are uPlot's.
    function chart(title, hint, half, options, figures) {
      const whole = element("button", { class: "whole", type: "button", hidden: "" }, "whole run");
      whole.onclick = () => look(0, end);
      buttons.push(whole);
      const note = element("span", {}, hint);
      const plot = element("div", { class: "plot", tabindex: "0", role: "group", "aria-label": `${title}. Chart: arrow keys move the cursor.` });
      const figure = element("figure", half ? { class: "half" } : {}, element("figcaption", {}, title, note, whole), plot);
      place.append(figure);
      const width = Math.max(240, plot.clientWidth);
      const { unit, plugins = [], ...rest } = options;
      const moment = (u) => (note.textContent = u.cursor.idx == null ? hint : "at " + clock(xs[u.cursor.idx] - step / 2));
      const u = new uPlot({
        width,
        height: half ? 170 : 230,
        padding: [16, 22, 0, 0],
        axes: axes(unit, width, options.scales.y.distr === 3),
        legend: {
          markers: {
            // As style sheets' colours, so that a change of theme reaches them.
            stroke: (u, i) => `var(--${u.series[i].colour})`,
            width: (u, i) => 2,
            dash: (u, i) => (u.series[i].dash && u.series[i].dash.length ? "dashed" : "solid"),
            fill: () => "none",
          },
        },
        ...rest,
        scales: { x: { time: false, range: (u, lo, hi) => [lo == null || lo <= xs[0] ? 0 : lo, hi == null || hi >= xs[columns - 1] ? end : hi] }, ...options.scales },
        cursor: { y: false, sync: { key, scales: ["x", null] }, points: { size: 6 }, ...options.cursor },
        plugins: [{ hooks: marks }, { hooks: { setCursor: moment } }, ...plugins,
          { hooks: { setScale: (u, scale) => scale === "x" && u === plots[0] && shown(u) } }],
      }, [xs, ...figures], plot);
      legend(u);
      plot.addEventListener("keydown", (event) => keyed(event, u));
      plots.push(u);
      return { u, note };
    }
    function shown(u) {
      for (const button of buttons) button.hidden = !zoomed(u);
    }

    // What a mouse can do to a legend and a chart, a keyboard can.
    function legend(u) {
      const names = [...u.root.querySelectorAll(".u-series th")];
      const press = () => names.slice(1).forEach((th, i) => th.setAttribute("aria-pressed", String(u.series[i + 1].show)));
      u.hooks.setSeries = [press];
      press();
      for (const th of names.slice(1)) {
        th.tabIndex = 0;
        th.setAttribute("role", "button");
        th.addEventListener("keydown", (event) => {
          if (event.key !== "Enter" && event.key !== " ") return;
          event.preventDefault();
          event.stopPropagation();
          th.click();
        });
      }
    }
    function keyed(event, u) {
      if (event.target !== event.currentTarget || event.ctrlKey || event.metaKey || event.altKey) return;
      const { min, max } = u.scales.x;
      const at = u.cursor.idx == null ? null : u.cursor.idx;
      const page = Math.max(1, Math.round(columns / 20));
      const moves = { ArrowLeft: -1, ArrowRight: 1, PageDown: page, PageUp: -page, Home: -columns, End: columns };
      if (event.key in moves) {
        const first = u.valToIdx(min), last = u.valToIdx(max);
        const to = at == null ? first : Math.min(last, Math.max(first, at + moves[event.key]));
        u.setCursor({ left: u.valToPos(xs[to], "x"), top: 0 }, true, true);
        heard.textContent = spoken(u, to);
      } else if (event.key === "+" || event.key === "-") {
        const centre = at == null ? (min + max) / 2 : xs[at];
        const wide = Math.max(4 * step, (max - min) * (event.key === "+" ? 0.5 : 2));
        look(centre - wide / 2, centre + wide / 2);
      } else if (event.key === "Escape" || event.key === "0") {
        look(0, end);
      } else {
        return;
      }
      event.preventDefault();
    }
    function spoken(u, i) {
      const said = u.series.slice(1).map((s, at) => {
        const v = u.data[at + 1][i];
        return s.show && v != null ? `${s.label} ${s.value(u, v)}` : null;
      });
      return `${clock(xs[i] - step / 2)}: ${said.filter(Boolean).join(", ")}`;
    }

    const timeline = { label: "at", value: () => "" };
    function line(label, name, unit, more) {
      const { fill, fills, ...rest } = more || {};
      return {
        label, colour: name, width: 1.5, stroke: () => colour(name), points: { show: columns < 2 },
        fill: fill ? () => colour(name) + "2e" : fills,
        value: (u, v) => (v == null ? "" : UNITS[unit].value(v)), ...rest,
      };
    }
    const fromZero = { y: { range: (u, lo, hi) => [0, hi > 0 ? hi * 1.08 : 1] } };
    function lines(title, hint, half, unit, drawn, more) {
      return chart(title, hint, half, { unit, series: [timeline, ...drawn.map((l) => l[0])], scales: fromZero, ...more }, drawn.map((l) => l[1]));
    }

    const each = step === 1 ? "by the second" : `each point ${clock(step)}`;
    lines("Visits", `that begin, ${each}`, false, "per_second", [
      [line("wished", "most", "per_second", { dash: [4, 3] }), data.wished],
      [line("begun", "c0", "per_second", { fill: true }), data.begun],
    ], { plugins: [{ hooks: { draw: names } }] });
    lines("Visitors", "at once, and their connections", false, "plain", [
      [line("visitors", "c0", "plain", { fill: true }), data.visitors],
      [line("connections", "c1", "plain", { dash: [6, 3] }), data.connections],
    ]);

    // Where there is none there is nothing to see, and a single second is.
    const bars = (name) => ({ paths: uPlot.paths.bars({ size: [1, Infinity, 2] }), width: 0, fills: () => colour(name) });

    // Requests and latency, of all classes or of one.
    let requests, latency;
    const ofRequests = (g) => [g.sent, g.ok, g.shed, g.failed];
    const ofLatency = (g) => [g.p50, g.p90, g.p99, g.max, g.service];
    if (data.groups.length > 2) place.append(chooser());
    function chooser() {
      const made = element("fieldset", { class: "classes" }, element("legend", {}, "requests of"));
      data.groups.forEach((group, i) => {
        const input = element("input", { type: "radio", name: key, value: String(i) });
        input.checked = i === 0;
        input.onchange = () => {
          show(requests.u, ofRequests(group));
          show(latency.u, ofLatency(group));
        };
        made.append(element("label", {}, input, group.name));
      });
      return made;
    }
    function show(u, figures) {
      const { min, max } = u.scales.x;
      u.batch(() => {
        u.setData([xs, ...figures], false);
        u.setScale("x", { min, max });
      });
    }
    const all = data.groups[0];
    requests = lines("Requests", "per second, by how they ended", false, "per_second", [
      [line("sent", "most", "per_second", { dash: [4, 3] }), all.sent],
      [line("ok", "ok", "per_second", { fill: true }), all.ok],
      [line("shed", "shed", "per_second", bars("shed")), all.shed],
      [line("failed", "failed", "per_second", bars("failed")), all.failed],
    ]);
    const byDecades = { y: { distr: 3, log: 10, range: (u, lo, hi) => (lo == null ? [1000, 1e6] : uPlot.rangeLog(Math.max(1, lo), Math.max(1, hi), 10, false)) } };
    latency = chart("Latency", "from when a request was meant to be sent", false, {
      unit: "us", scales: byDecades,
      series: [timeline, line("p50", "p50", "us"), line("p90", "p90", "us"), line("p99", "p99", "us", { width: 2.25 }),
        line("slowest", "most", "us", { dash: [2, 2], width: 1 }), line("p99 once sent", "c1", "us", { dash: [6, 3], width: 1, show: false })],
    }, ofLatency(all));
    if (data.heat) heatMap(data.heat);
    if (data.failures.length > 0) {
      lines("Failures", "per second, by kind", false, "per_second",
        data.failures.map((l, i) => [styled(l.label, i, "per_second", {}), l.values]));
    } else {
      place.append(element("p", { class: "note" }, "No request failed."));
    }
    // A tier has the same colour in every chart.
    const tierNames = [...new Set(data.tiers.flatMap((tier) => tier.lines.map((l) => l.label)))];
    if (data.tiers.length > 0) place.append(element("h3", {}, "What the tiers measured of themselves"));
    for (const tier of data.tiers) {
      const stepped = tier.unit === "members" ? { paths: uPlot.paths.stepped({ align: 1 }) } : {};
      lines(tier.title, "", true, tier.unit, tier.lines.map((l) => [styled(l.label, tierNames.indexOf(l.label), tier.unit, stepped), l.values]));
    }
    if (data.left_out > 0)
      place.append(element("p", { class: "note" }, `${data.left_out} lines more stand in the JSON.`));

    // Beyond eight lines colours come again, with other dashes.
    function styled(label, i, unit, more) {
      return line(label, "c" + (i % 8), unit, { dash: DASHES[Math.floor(i / 8) % DASHES.length], ...more });
    }

    // How many answers took how long: the darker, the more.
    function heatMap(heat) {
      const LEVELS = 7;
      const edge = (row) => Math.pow(10, (heat.first + row) / 10);
      const most = Math.log(1 + heat.most);
      const levels = Array.from({ length: LEVELS }, () => []);
      heat.cells.forEach((cells, column) => {
        for (let i = 0; i < cells.length; i += 2) {
          const level = Math.ceil((Math.log(1 + cells[i + 1]) / most) * LEVELS) - 1;
          levels[level].push(column, cells[i]);
        }
      });
      const strength = (level) => 0.1 + (0.9 * level) / (LEVELS - 1);
      const cells = {
        drawAxes(u) {
          const { ctx } = u;
          const x = Array.from({ length: columns + 1 }, (_, i) => Math.round(u.valToPos(i * step, "x", true)));
          const y = Array.from({ length: heat.rows + 1 }, (_, i) => Math.round(u.valToPos(edge(i), "y", true)));
          ctx.save();
          ctx.beginPath();
          ctx.rect(u.bbox.left, u.bbox.top, u.bbox.width, u.bbox.height);
          ctx.clip();
          ctx.fillStyle = colour("heat");
          levels.forEach((filled, level) => {
            ctx.globalAlpha = strength(level);
            for (let i = 0; i < filled.length; i += 2) {
              const column = filled[i], row = filled[i + 1];
              ctx.fillRect(x[column], y[row + 1], x[column + 1] - x[column], y[row] - y[row + 1]);
            }
          });
          ctx.restore();
        },
        setCursor(u) {
          const { event, top, idx } = u.cursor;
          // Of another chart's cursor only the time is ours.
          if (idx == null || event == null || top < 0) return;
          const row = Math.floor(10 * Math.log10(u.posToVal(top, "y"))) - heat.first;
          const found = heat.cells[idx];
          let n = 0;
          for (let i = 0; i < found.length; i += 2) if (found[i] === row) n = found[i + 1];
          const value = UNITS.us.value;
          map.note.textContent = `at ${clock(xs[idx] - step / 2)}: ${thousands(n)} took ${value(edge(row))} to ${value(edge(row + 1))}`;
        },
      };
      const map = chart("Latency, all answers", "how many took how long", false, {
        unit: "us",
        series: [timeline, { label: "answers", paths: () => null, points: { show: false }, colour: "heat", stroke: () => colour("heat") }],
        scales: { y: { distr: 3, log: 10, range: () => [edge(0), edge(heat.rows)] } },
        legend: { show: false },
        cursor: { y: true, sync: { key, scales: ["x", null] }, points: { show: false } },
        plugins: [{ hooks: cells }],
      }, [xs.map(() => null)]);
      const scale = element("span", { class: "scale" }, "1");
      for (let level = 0; level < LEVELS; level++) {
        const swatch = element("i", {});
        swatch.style.opacity = strength(level);
        scale.append(swatch);
      }
      scale.append(thousands(heat.most));
      map.note.after(scale);
    }

    return {
      fit() {
        for (const u of plots) {
          const width = u.root.parentNode.clientWidth;
          if (width > 0 && width !== u.width) u.setSize({ width, height: u.height });
        }
      },
      redraw() {
        for (const u of plots) u.redraw(false);
      },
    };
  }

  const drawn = [];
  document.querySelectorAll(".part").forEach((section) => {
    const data = parts[Number(section.dataset.part)];
    if (data.columns > 0) drawn.push(drawPart(section.querySelector(".charts"), data, "part-" + section.dataset.part));
  });

  function recolour() {
    known = new Map();
    for (const part of drawn) part.redraw();
  }
  for (const media of ["(prefers-color-scheme: dark)", "print"]) matchMedia(media).addEventListener("change", recolour);
  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((d) => (d.open = true)));
  new ResizeObserver(() => drawn.forEach((part) => part.fit())).observe(document.querySelector("main"));

  // uPlot draws in microtasks, which have all run before the next task. Since the page was opened, in ms.
  setTimeout(() => (document.documentElement.dataset.drawnMs = String(Math.round(performance.now()))), 0);
})();
