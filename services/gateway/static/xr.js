// The film on a screen of its own in a headset, each eye with its own half of the picture.
//
// Where the browser has WebXR layers, its compositor samples the video itself (a quad layer, sharpest and smoothest);
// elsewhere a quad is drawn into each eye's viewport. Both say which eye gets which half; nothing is left to a default.
//
// In the headset: pull the trigger on the left or right third of the screen, or push the stick, to go ten seconds on or
// back; in the middle it pauses.
import { eyesOf, prepared, texture } from "./glass.js";
import { SIGN, Sign } from "./sign.js";

const DISTANCE = 3.2; // metres to the screen
const HEIGHT = 1.9; // metres; its width follows the film
const STEP_SECONDS = 10;
const PUSHED = 0.7; // of a stick's way; it counts once more when it was back near its middle
const RESTS = 0.3;
const WHOLE = [0, 0, 1, 1];
const LAYER_LAYOUTS = { "half-sbs": "stereo-left-right", "full-sbs": "stereo-left-right", "half-tb": "stereo-top-bottom", "full-tb": "stereo-top-bottom" };

const VERTEX = `
attribute vec2 corner; uniform mat4 projection; uniform mat4 view; uniform vec4 screen; varying vec2 place;
void main() {
  place = vec2(corner.x, 1.0 - corner.y);
  gl_Position = projection * view * vec4((corner.x - 0.5) * screen.x, (corner.y - 0.5) * screen.y + screen.z, -screen.w, 1.0);
}`;
const FRAGMENT = `
#ifdef GL_FRAGMENT_PRECISION_HIGH
precision highp float;
#else
precision mediump float;
#endif
varying vec2 place; uniform sampler2D picture; uniform vec4 eye;
void main() { gl_FragColor = texture2D(picture, eye.xy + place * eye.zw); }`;

/** Whether a headset is there. */
export async function hasHeadset() {
  return Boolean(await navigator.xr?.isSessionSupported?.("immersive-vr").catch(() => false));
}

/**
 * Show `video`, whose picture has `layout`, in the headset; the running session, whose end is its "end" event. `words()`
 * is the subtitle of now, `seek(seconds)` goes on or back. `silent` where subtitles cannot be shown.
 */
export async function enter(video, layout, { swap = false, words = () => "", seek = () => {} } = {}) {
  const session = await navigator.xr.requestSession("immersive-vr", { optionalFeatures: ["local-floor", "layers"] });
  const show = { session, video, layout, swap, words, seek, way: null, silent: false, sign: new Sign(), pushed: new Set() };
  try {
    const floor = await session.requestReferenceSpace("local-floor").catch(() => null);
    show.space = floor ?? (await session.requestReferenceSpace("local"));
    show.height = floor ? 1.5 : 0;
    if (!(await layered(show))) await drawn(show);
  } catch (problem) {
    await session.end().catch(() => {});
    throw problem;
  }
  session.addEventListener("select", (event) => select(show, event));
  session.addEventListener("end", () => { show.over = true; });
  const step = (_, frame) => {
    if (show.over) return;
    session.requestAnimationFrame(step);
    sticks(show);
    show.draw(frame);
  };
  session.requestAnimationFrame(step);
  return show;
}

/** Which eye gets which half from now on. */
export function exchange(show, swap) {
  show.swap = swap;
  show.lay?.();
}

// ---- controllers ----
function select(show, event) {
  const place = aimed(show, event);
  if (Math.abs(place) > 1 / 6) show.seek(Math.sign(place) * STEP_SECONDS);
  else if (show.video.paused) show.video.play().catch(() => {});
  else show.video.pause();
}

/** Where on the screen somebody points, from -0.5 at its left edge to 0.5; 0 beside it. */
function aimed({ space, video, layout, height }, { frame, inputSource }) {
  const pose = frame?.getPose?.(inputSource.targetRaySpace, space);
  if (!pose) return 0;
  const m = pose.transform.matrix; // the ray goes along its own -z
  const far = (-DISTANCE - m[14]) / -m[10];
  const [x, y] = [m[12] - far * m[8], m[13] - far * m[9]];
  const place = x / screenWidth(video, layout);
  return far > 0 && Math.abs(place) <= 0.5 && Math.abs(y - height) <= HEIGHT / 2 ? place : 0;
}

function sticks({ session, pushed, seek }) {
  for (const source of session.inputSources ?? []) {
    const axes = source.gamepad?.axes ?? [];
    const x = (axes.length > 2 ? axes[2] : axes[0]) ?? 0; // a touchpad's come first, where both are
    if (Math.abs(x) < RESTS) pushed.delete(source);
    else if (Math.abs(x) > PUSHED && !pushed.has(source)) {
      pushed.add(source);
      seek(Math.sign(x) * STEP_SECONDS);
    }
  }
}

const signPlace = (show) => [show.height - HEIGHT / 2 + SIGN.height / 2 + 0.05, DISTANCE - 0.1];

/** Width of the screen in metres, from the shape of one eye's picture. */
export function screenWidth(video, layout) {
  const [[, , across, down]] = eyesOf(layout);
  const half = layout === "half-sbs" ? 1 / across : layout === "half-tb" ? down : 1;
  const shape = ((video.videoWidth * across) / (video.videoHeight * down)) * half || 16 / 9;
  return HEIGHT * shape;
}

/** A quad layer that the compositor feeds; false where there are none, or where the eyes are the other way round. */
async function layered(show) {
  const { session, video, layout } = show;
  if (!("XRMediaBinding" in self) || !LAYER_LAYOUTS[layout] || !session.enabledFeatures?.includes("layers")) return false;
  try {
    const binding = new XRMediaBinding(session);
    const board = await signLayer(show);
    show.silent = !board;
    // A layer reads which eye is which when it is made, and never again: a swap makes another one.
    show.lay = () => {
      const before = show.layer;
      show.layer = binding.createQuadLayer(video, {
        space: show.space,
        layout: LAYER_LAYOUTS[layout],
        // The sides of a layer are halves of the quad's; a swap is told to the layer, which has a word for it.
        invertStereo: show.swap,
        width: screenWidth(video, layout),
        height: HEIGHT,
        transform: new XRRigidTransform({ x: 0, y: show.height, z: -DISTANCE, w: 1 }),
      });
      const state = session.updateRenderState({ layers: board ? [show.layer, board.layer] : [show.layer] });
      before?.destroy?.();
      return state;
    };
    await show.lay();
    show.way = "layer";
    show.draw = (frame) => board?.draw(frame);
    return true;
  } catch {
    delete show.lay;
    return false;
  }
}

/** The subtitles' own layer, in front of the film's: { layer, draw(frame) }; null where there can be none. */
async function signLayer(show) {
  try {
    const gl = document.createElement("canvas").getContext("webgl2", { xrCompatible: true });
    await gl.makeXRCompatible?.();
    const binding = new XRWebGLBinding(show.session, gl);
    const [y, distance] = signPlace(show);
    const layer = binding.createQuadLayer({
      space: show.space, layout: "mono", viewPixelWidth: SIGN.pixels[0], viewPixelHeight: SIGN.pixels[1],
      width: SIGN.width, height: SIGN.height, transform: new XRRigidTransform({ x: 0, y, z: -distance, w: 1 }),
    });
    const draw = (frame) => {
      if (!show.sign.write(show.words()) && !layer.needsRedraw) return;
      gl.bindTexture(gl.TEXTURE_2D, binding.getSubImage(layer, frame).colorTexture);
      gl.pixelStorei(gl.UNPACK_FLIP_Y_WEBGL, true);
      gl.pixelStorei(gl.UNPACK_PREMULTIPLY_ALPHA_WEBGL, true);
      gl.texSubImage2D(gl.TEXTURE_2D, 0, 0, 0, gl.RGBA, gl.UNSIGNED_BYTE, show.sign.canvas);
    };
    return { layer, draw };
  } catch {
    return null;
  }
}

/** One quad in each eye's viewport, with that eye's half of the picture. */
async function drawn(show) {
  const { session, video } = show;
  const canvas = document.createElement("canvas");
  const gl = canvas.getContext("webgl2", { xrCompatible: true, antialias: true }) ?? canvas.getContext("webgl", { xrCompatible: true });
  if (!gl) throw new Error("There is no WebGL here.");
  await gl.makeXRCompatible?.();
  const program = build(gl);
  const layer = new XRWebGLLayer(session, gl);
  await session.updateRenderState({ baseLayer: layer });
  const film = texture(gl);
  const words = texture(gl);
  gl.enable(gl.BLEND);
  gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
  gl.pixelStorei(gl.UNPACK_PREMULTIPLY_ALPHA_WEBGL, true);
  Object.assign(show, { way: "drawn", gl, layer });
  show.draw = (frame) => {
    const pose = frame.getViewerPose(show.space);
    gl.bindFramebuffer(gl.FRAMEBUFFER, layer.framebuffer);
    gl.clearColor(0, 0, 0, 1);
    gl.clear(gl.COLOR_BUFFER_BIT);
    if (!pose || video.readyState < 2) return;
    const quad = (box, half) => {
      gl.uniform4f(program.screen, ...box);
      for (const view of pose.views) {
        const { x, y, width, height } = layer.getViewport(view);
        gl.viewport(x, y, width, height);
        gl.uniformMatrix4fv(program.projection, false, view.projectionMatrix);
        gl.uniformMatrix4fv(program.view, false, view.transform.inverse.matrix);
        gl.uniform4fv(program.eye, half(view.eye));
        gl.drawArrays(gl.TRIANGLE_STRIP, 0, 4);
      }
    };
    gl.bindTexture(gl.TEXTURE_2D, film);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGB, gl.RGB, gl.UNSIGNED_BYTE, video);
    quad([screenWidth(video, show.layout), HEIGHT, show.height, DISTANCE], (eye) => eyeOf(eye, show));
    gl.bindTexture(gl.TEXTURE_2D, words);
    if (show.sign.write(show.words())) gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, show.sign.canvas);
    if (show.sign.text) quad([SIGN.width, SIGN.height, ...signPlace(show)], () => WHOLE);
  };
}

/** The part of the picture that an eye ("left", "right" or "none") is to see. */
export function eyeOf(eye, { layout, swap }) {
  const [left, right] = eyesOf(layout);
  return (eye === "right") !== swap ? right : left;
}

function build(gl) {
  const program = prepared(gl, VERTEX, FRAGMENT, [0, 0, 1, 0, 0, 1, 1, 1]);
  return Object.fromEntries(["projection", "view", "screen", "eye"].map((name) => [name, gl.getUniformLocation(program, name)]));
}
