// The device model and the planner in a reader's browser: the package's own formulas, on numbers that Python wrote.
// Mirrors mobivid_core/phone/roofline.py (products, seconds) and models/counts.py (parameters).
"use strict";

const MobiVidLive = (() => {
  const HALF = 2; // bytes of a float16

  // Products of one pass: [FLOPs, bytes, how many]. s: hidden, headDim, blocks, heads, ffn, channels, textDim.
  function products(s, tokens, text) {
    const linear = (rows, a, b, n) => [2 * rows * a * b, (a + 1) * b * HALF + HALF * rows * (a + b), n];
    const scores = (keys, width, n) => [4 * tokens * keys * width, HALF * 2 * (tokens + keys) * width, n];
    const h = s.hidden, width = s.heads * s.headDim, list = [
      linear(tokens, s.channels, h, 1), linear(text, s.textDim, h, 1), linear(text, h, h, 1),
      linear(tokens, h, s.channels, 1),
    ];
    for (const keys of width ? [tokens, text] : []) {
      list.push(linear(tokens, h, width, s.blocks), linear(keys, h, width, 2 * s.blocks));
      list.push(scores(keys, width, s.blocks), linear(tokens, width, h, s.blocks));
    }
    if (s.ffn) list.push(linear(tokens, h, s.ffn, s.blocks), linear(tokens, s.ffn, h, s.blocks));
    return list;
  }

  function tokensOf(frames, width, height) {
    return (1 + (frames - 1) / 8) * (height / 32) * (width / 32);
  }

  // Frames/s. q: tflops, gbs, efficiency, frames, width, height, steps, decoderTflop.
  function rate(s, q) {
    const flopsPerS = q.efficiency * q.tflops * 1e12, bytesPerS = q.gbs * 1e9;
    let seconds = q.decoderTflop * 1e12 / flopsPerS;
    for (const [flops, bytes, n] of products(s, tokensOf(q.frames, q.width, q.height), 77)) {
      seconds += q.steps * n * Math.max(flops / flopsPerS, bytes / bytesPerS);
    }
    return q.frames / seconds;
  }

  // Parameters, TFLOP of a pass and megabytes at each number of bits.
  function plan(s, tokens) {
    const h = s.hidden, w = s.heads * s.headDim, linear = (a, b) => a * b + b;
    const attention = 3 * linear(h, w) + linear(w, h) + 2 * w;
    const block = 2 * attention + linear(h, s.ffn) + linear(s.ffn, h) + 6 * h;
    const outer = linear(s.channels, h) + linear(h, s.channels) + linear(s.textDim, h) + linear(h, h)
      + linear(256, h) + linear(h, h) + linear(h, 6 * h) + 2 * h;
    const params = s.blocks * block + outer;
    const host = linear(256, h) + linear(h, h) + linear(h, 6 * h); // the timestep's products
    const flops = products(s, tokens, 77).reduce((sum, [f, , n]) => sum + f * n, 0) + 2 * (host - 8 * h);
    return { params, tflop: flops / 1e12, megabytes: [16, 8, 6, 4].map((bits) => params * bits / 8e6) };
  }

  function mount(root, data) {
    const field = (name) => root.querySelector(`[name=${name}]`);
    const number = (name) => Number(field(name).value);
    // What stands beside a slider.
    function told(name, device) {
      const value = number(name);
      if (name === "efficiency") return `${Math.round(100 * value)} %`;
      if (name === "bandwidth") return `${(device.gbs * 2 ** value).toPrecision(3)} GB/s`;
      if (name === "decoder") return `${value.toFixed(1)} TFLOP`;
      return value.toLocaleString("en-US");
    }
    function update() {
      const device = data.devices[number("device")];
      const [width, height] = data.sizes[number("size")];
      const frames = number("frames"), steps = number("steps");
      const s = { ...data.model, blocks: number("blocks"), heads: number("heads"), ffn: number("ffn") };
      const grown = number("decoder") * width * height * frames / data.cells;
      const at = (efficiency) => rate(s, { tflops: device.tflops, gbs: device.gbs * 2 ** number("bandwidth"),
        efficiency, frames, width, height, steps, decoderTflop: grown });
      const made = plan(s, tokensOf(frames, width, height));
      const low = at(data.efficiency.low), high = at(data.efficiency.high);
      root.querySelector(".speed").textContent =
        `${at(number("efficiency")).toFixed(1)} frames/s at ${Math.round(100 * number("efficiency"))} % of `
        + `${device.tflops} TFLOP/s; ${low.toFixed(1)} to ${high.toFixed(1)} over the efficiency's 80 % interval (derived)`;
      root.querySelector(".plan").textContent =
        `${(made.params / 1e6).toFixed(0)} M parameters, ${made.tflop.toFixed(2)} TFLOP a pass; `
        + [16, 8, 6, 4].map((bits, i) => `${made.megabytes[i].toFixed(0)} MB at ${bits} bits`).join(", ")
        + (made.megabytes[0] * 1e6 < data.weightFile ? "" : "; float16 is a file that the Neural Engine refuses")
        + (made.megabytes[0] * 1e6 <= data.chunk ? "" : `; ${Math.ceil(made.megabytes[0] * 1e6 / data.chunk)} packages in float16`);
      for (const output of root.querySelectorAll("output")) {
        output.textContent = told(output.dataset.of, device);
      }
    }
    root.addEventListener("input", update);
    update();
  }

  // Hand over an element as soon as it is part of the document.
  function when(id, use, tries = 100) {
    const root = document.getElementById(id);
    if (root) use(root);
    else if (tries) setTimeout(() => when(id, use, tries - 1), 100);
  }

  return { rate, plan, tokensOf, mount, when };
})();
if (typeof module !== "undefined") module.exports = MobiVidLive;
