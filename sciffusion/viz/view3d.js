// Turns every .stage of the page into a 3Dmol.js viewer when it first comes into sight. The stages
// of one figure turn together; until a viewer runs, and on paper, the still picture below it shows.
// All viewers draw through one WebGL context, so a page may hold any number of them.
(() => {
  const lib = window.$3Dmol;
  const EYE = 150; // 3Dmol's distance of the camera, and half its angle of view
  const TAN = Math.tan((20 * Math.PI) / 180);
  const SPARE = 0.76; // it leaves room for a perspective that is not used here
  const SLIM = 0.62; // bonds of hydrogen
  const FOLD = { h: 1, s: 2, a: 2 }; // helix, strand, an arrow's head or tail
  const RATE = 10; // frames a second of a movie
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const ground = (stage) => {
    const [r, g, b] = getComputedStyle(stage).backgroundColor.match(/[\d.]+/g).map(Number);
    return (r << 16) | (g << 8) | b;
  };

  // Colours of a backbone's atoms: by structure, by chain, or along each chain.
  function painter(data, atoms) {
    const stops = data.stops.map((s) => parseInt(s.slice(1), 16));
    if (data.paint === "secondary") return (atom) => stops[FOLD[atom.ss?.[0]] ?? 0];
    const chains = Map.groupBy(atoms, (atom) => atom.chain);
    const order = [...chains.keys()];
    if (data.paint === "chain") return (atom) => stops[order.indexOf(atom.chain) % stops.length];
    const place = new Map();
    for (const [chain, own] of chains) {
      const residues = [...new Set(own.map((atom) => atom.rescode))];
      residues.forEach((code, k) => {
        place.set(chain + code, (k / Math.max(residues.length - 1, 1)) * (stops.length - 1));
      });
    }
    const part = (colour, bits) => (colour >> bits) & 255;
    return (atom) => {
      const at = place.get(atom.chain + atom.rescode);
      const [a, b] = [stops[Math.floor(at)], stops[Math.ceil(at)]];
      const mix = (bits) => Math.round(part(a, bits) + (part(b, bits) - part(a, bits)) * (at % 1));
      return (mix(16) << 16) | (mix(8) << 8) | mix(0);
    };
  }

  // Sticks from CA to CA however far off, since the first frames of a movie are noise.
  function thread(atoms) {
    for (const atom of atoms) [atom.bonds, atom.bondOrder] = [[], []];
    for (let i = 1; i < atoms.length; i++) {
      const [a, b] = [atoms[i - 1], atoms[i]];
      if (a.chain !== b.chain || b.resi - a.resi > 1) continue; // an end, or residues are missing
      for (const [one, other] of [[a, b], [b, a]]) {
        one.bonds.push(other.index);
        one.bondOrder.push(1);
      }
    }
  }

  function look(data, i, model, everything) {
    const own = data.colours[i];
    if (data.style === "cartoon" || data.style === "trace") {
      const paint = own ? { color: own } : { colorfunc: painter(data, model.selectedAtoms({})) };
      const cartoon = { style: "oval", arrows: true, thickness: 0.35, ...paint };
      model.setStyle({}, data.style === "trace" ? { stick: { radius: 0.35, ...paint } } : { cartoon });
      model.setStyle({ hetflag: true }, { stick: { radius: 0.15 } });
      return;
    }
    const colorscheme = { prop: "elem", map: { ...data.palette, ...(own && { C: own }) } };
    const radius = data.style === "balls" ? 0.13 : data.models.length > 1 ? 0.105 : 0.17;
    const style = (r) => ({
      stick: { radius: r, colorscheme },
      ...(data.style === "balls" && { sphere: { scale: 0.22, colorscheme } }),
    });
    model.setStyle({}, style(radius));
    model.setStyle({ elem: "H" }, style(radius * SLIM));
    const atoms = model.selectedAtoms({});
    for (const atom of atoms) {
      const slim = (i) => atom.elem === "H" || atoms[i].elem === "H";
      atom.bondStyles = atom.bonds.map((i) => (slim(i) ? { radius: radius * SLIM } : {}));
    }
    if (!everything && data.hidden.length) model.setStyle({ index: data.hidden }, {});
  }

  function start(stage, data, figure) {
    const viewer = lib.createViewer(stage, {
      backgroundColor: ground(stage), orthographic: true, cartoonQuality: 6,
    });
    viewer.setViewStyle({ style: "outline", color: "#333", width: 0.02, maxpixels: 1 });
    const models = data.models.map((text) => {
      const model = viewer.addModel(text, data.kind);
      if (data.style === "trace") thread(model.selectedAtoms({ hetflag: false }));
      // sticks are single: of twenty conformers over each other, double ones cannot be read
      for (const atom of model.selectedAtoms({})) atom.bondOrder?.fill(1);
      return model;
    });
    const panel = stage.closest(".view");
    const slider = panel.querySelector("input[type=range]");
    const box = figure.querySelector("input[type=checkbox]");

    const paint = () => {
      models.forEach((model, i) => look(data, i, model, box?.checked));
      pick();
    };
    const pick = () => {
      const chosen = slider ? slider.valueAsNumber : 0;
      models.forEach((model, i) => (chosen && chosen !== i + 1 ? model.hide() : model.show()));
      viewer.render();
    };
    const home = () => {
      viewer.zoomTo();
      const [x, y, z, near] = viewer.getView();
      const fitted = data.reach ? [0, 0, 0, EYE - data.reach / TAN] : [x, y, z, EYE - (EYE - near) * SPARE];
      const { near: front, far: back } = viewer.getSlab();
      const reach = (EYE - fitted[3]) * TAN;
      const share = (depth) => (depth - front) / (back - front);
      viewer.enableFog({ fogStart: share(-0.3 * reach), fogEnd: share(1.5 * reach) });
      viewer.setView([...fitted, 0, 0, 0, 1]);
      paper(); // enableFog forgets the colour
    };
    const paper = () => viewer.setBackgroundColor(ground(stage));
    slider?.addEventListener("input", pick);
    box?.addEventListener("change", paint);
    dark.addEventListener("change", paper);
    stage.addEventListener("dblclick", home);
    stage.addEventListener("mousedown", () => stage.focus({ preventScroll: true }));
    // the wheel belongs to the page until the stage was clicked or Ctrl is held
    stage.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && document.activeElement !== stage) event.stopPropagation();
    }, { capture: true });
    const keys = {
      ArrowLeft: () => viewer.rotate(-10, "vy"), ArrowRight: () => viewer.rotate(10, "vy"),
      ArrowUp: () => viewer.rotate(-10, "vx"), ArrowDown: () => viewer.rotate(10, "vx"),
      "+": () => viewer.zoom(1.15), "-": () => viewer.zoom(1 / 1.15), 0: home,
    };
    stage.addEventListener("keydown", (event) => {
      if (!keys[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      keys[event.key]();
    });
    paint();
    home();
    return viewer;
  }

  function label(panel, data) {
    const slider = panel.querySelector("input[type=range]");
    if (!slider) return;
    const place = panel.querySelector("output");
    const say = () => {
      const i = slider.valueAsNumber;
      const name = data.names[i - 1];
      place.textContent = i ? `${i} of ${slider.max}${name ? " · " + name : ""}` : `all ${slider.max}`;
      slider.setAttribute("aria-valuetext", place.textContent);
    };
    slider.addEventListener("input", say);
    say();
  }

  // The button of a movie; any touch of the slider stops it.
  function play(panel) {
    const [button, slider] = ["button", "input"].map((kind) => panel.querySelector(`.bar ${kind}`));
    if (!button) return;
    let timer = 0;
    const show = (frame) => {
      slider.value = frame;
      slider.dispatchEvent(new Event("input"));
    };
    const stop = () => {
      timer = clearInterval(timer);
      button.textContent = "play";
    };
    button.addEventListener("click", () => {
      if (timer) return stop();
      if (slider.value === slider.max) show(slider.min);
      button.textContent = "pause";
      timer = setInterval(() => {
        if (slider.value === slider.max) stop();
        else show(slider.valueAsNumber + 1);
      }, 1000 / RATE);
    });
    for (const kind of ["pointerdown", "keydown"]) slider.addEventListener(kind, stop);
  }

  for (const figure of document.querySelectorAll("figure.views")) {
    const all = JSON.parse(figure.querySelector("script").textContent);
    const stages = [...figure.querySelectorAll(".stage")];
    const viewers = [];
    stages.forEach((stage, k) => label(stage.closest(".view"), all[k]));
    stages.forEach((stage) => play(stage.closest(".view")));
    const wake = () => {
      sight.disconnect();
      try {
        stages.forEach((stage, k) => viewers.push(start(stage, all[k], figure)));
      } catch (error) {
        console.warn("no WebGL here, the still pictures stay:", error);
        figure.classList.add("still");
        return;
      }
      for (const one of viewers) for (const other of viewers) if (one !== other) one.linkViewer(other);
      figure.classList.add("live");
    };
    const sight = new IntersectionObserver((seen) => seen.some((s) => s.isIntersecting) && wake(), {
      rootMargin: "200px",
    });
    stages.forEach((stage) => sight.observe(stage));
    figure.viewers = viewers;
  }
})();
