// Ways to look at a stereo picture without a headset: one WebGL quad that samples both eyes of the video.
const VERTEX = "attribute vec2 corner; varying vec2 v; void main() { v = corner * 0.5 + 0.5; gl_Position = vec4(corner, 0.0, 1.0); }";

// Anaglyph: Dubois' least-squares matrices for red and cyan (www.site.uottawa.ca/~edubois/anaglyph), on gamma-coded RGB
// as the tables are published; columns are the source's R, G and B.
// 16 bits, which a telephone's "medium" precision has, place a wide picture's right half to two pixels only.
const FRAGMENT = `
#ifdef GL_FRAGMENT_PRECISION_HIGH
precision highp float;
#else
precision mediump float;
#endif
varying vec2 v;
uniform sampler2D picture;
uniform vec4 left;
uniform vec4 right;
uniform int mode;
vec3 eye(vec4 box) { return texture2D(picture, box.xy + vec2(v.x, 1.0 - v.y) * box.zw).rgb; }
void main() {
  vec3 l = eye(left);
  if (mode == 1) {
    vec3 r = eye(right);
    vec3 a = mat3(0.437, -0.062, -0.048, 0.449, -0.062, -0.050, 0.164, -0.024, -0.017) * l;
    vec3 b = mat3(-0.011, 0.377, -0.026, -0.032, 0.761, -0.093, -0.007, 0.009, 1.234) * r;
    gl_FragColor = vec4(clamp(a + b, 0.0, 1.0), 1.0);
  } else {
    gl_FragColor = vec4(l, 1.0);
  }
}`;

// Where the left and the right eye lie in the picture: x, y, width, height; y grows downwards.
const EYES = {
  "half-sbs": [[0, 0, 0.5, 1], [0.5, 0, 0.5, 1]],
  "full-sbs": [[0, 0, 0.5, 1], [0.5, 0, 0.5, 1]],
  "cross-eyed": [[0.5, 0, 0.5, 1], [0, 0, 0.5, 1]],
  "half-tb": [[0, 0, 1, 0.5], [0, 0.5, 1, 0.5]],
  "full-tb": [[0, 0, 1, 0.5], [0, 0.5, 1, 0.5]],
  // Not two eyes: the film, and how near everything in it is.
  "2d-depth": [[0, 0, 0.5, 1], [0.5, 0, 0.5, 1]],
};

export const isStereo = (layout) => layout in EYES && layout !== "2d-depth";
export const eyesOf = (layout) => EYES[layout];

/** A program in use that draws one texture; `corners` are x, y of the attribute `corner`. */
export function prepared(gl, vertex, fragment, corners) {
  const program = gl.createProgram();
  for (const [kind, text] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, text);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  gl.useProgram(program);
  gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
  gl.bufferData(gl.ARRAY_BUFFER, new Float32Array(corners), gl.STATIC_DRAW);
  const corner = gl.getAttribLocation(program, "corner");
  gl.enableVertexAttribArray(corner);
  gl.vertexAttribPointer(corner, 2, gl.FLOAT, false, 0, 0);
  texture(gl);
  return program;
}

/** A texture, bound, of a size that need not be a power of two. */
export function texture(gl) {
  const made = gl.createTexture();
  gl.bindTexture(gl.TEXTURE_2D, made);
  for (const [name, value] of [[gl.TEXTURE_WRAP_S, gl.CLAMP_TO_EDGE], [gl.TEXTURE_WRAP_T, gl.CLAMP_TO_EDGE], [gl.TEXTURE_MIN_FILTER, gl.LINEAR], [gl.TEXTURE_MAG_FILTER, gl.LINEAR]]) gl.texParameteri(gl.TEXTURE_2D, name, value);
  return made;
}

export class Glass {
  /** Draw `video`, whose picture has `layout`, on `canvas`. Throws where there is no WebGL. */
  constructor(video, canvas, layout) {
    this.video = video;
    this.canvas = canvas;
    this.layout = layout;
    this.mode = "left";
    this.swap = false;
    this.second = false;
    const gl = (this.gl = canvas.getContext("webgl", { antialias: false, alpha: false, preserveDrawingBuffer: false }));
    if (!gl) throw new Error("There is no WebGL here.");
    const program = prepared(gl, VERTEX, FRAGMENT, [-1, -1, 3, -1, -1, 3]);
    this.places = Object.fromEntries(["left", "right", "mode"].map((name) => [name, gl.getUniformLocation(program, name)]));
  }

  /** "left", "right", "anaglyph" or "wiggle"; null stops drawing. */
  show(mode) {
    this.mode = mode;
    clearInterval(this.timer);
    if (mode === "wiggle") this.timer = setInterval(() => { this.second = !this.second; this.draw(); }, 160);
    else this.second = false;
    if (mode) this.loop();
  }

  loop() {
    const turn = ++this.turn || (this.turn = 1);
    const step = () => {
      if (turn !== this.turn || !this.mode) return;
      this.draw();
      if (this.video.requestVideoFrameCallback) this.video.requestVideoFrameCallback(step);
      else requestAnimationFrame(step);
    };
    step();
  }

  draw() {
    const { gl, video, canvas } = this;
    const [width, height] = [video.videoWidth, video.videoHeight];
    if (!width || video.readyState < 2) return;
    const eyes = EYES[this.layout].slice();
    if (this.swap) eyes.reverse();
    if (this.second || this.mode === "right") eyes.reverse();
    // A half layout squeezes each eye to half; shown alone it gets its shape back.
    const wide = this.layout === "half-sbs" ? width : width * eyes[0][2];
    const high = this.layout === "half-tb" ? height : height * eyes[0][3];
    if (canvas.width !== Math.round(wide) || canvas.height !== Math.round(high)) {
      canvas.width = Math.round(wide);
      canvas.height = Math.round(high);
      gl.viewport(0, 0, canvas.width, canvas.height);
    }
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGB, gl.RGB, gl.UNSIGNED_BYTE, video);
    gl.uniform4fv(this.places.left, eyes[0]);
    gl.uniform4fv(this.places.right, eyes[1]);
    gl.uniform1i(this.places.mode, this.mode === "anaglyph" ? 1 : 0);
    gl.drawArrays(gl.TRIANGLES, 0, 3);
  }
}

/** What draws one eye, or both as one picture, over `video`; null where there is no WebGL. */
export function lens(video, layout) {
  const canvas = document.createElement("canvas");
  canvas.className = "glass";
  canvas.hidden = true;
  canvas.setAttribute("aria-hidden", "true");
  video.after(canvas);
  try {
    return new Glass(video, canvas, layout);
  } catch {
    canvas.remove();
    return null;
  }
}
