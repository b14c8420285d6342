// The film on a screen of its own in a headset, each eye with its own half of the picture.
//
// Where the browser has WebXR layers, its compositor samples the video itself (a quad layer, sharpest and smoothest);
// elsewhere a quad is drawn into each eye's viewport. Both say which eye gets which half; nothing is left to a default.
import { eyesOf, prepared } from "./glass.js";

const DISTANCE = 3.2; // metres to the screen
const HEIGHT = 1.9; // metres; its width follows the film
const LAYER_LAYOUTS = { "half-sbs": "stereo-left-right", "full-sbs": "stereo-left-right", "half-tb": "stereo-top-bottom", "full-tb": "stereo-top-bottom" };

const VERTEX = `
attribute vec2 corner; uniform mat4 projection; uniform mat4 view; uniform vec4 screen; varying vec2 place;
void main() {
  place = vec2(corner.x, 1.0 - corner.y);
  gl_Position = projection * view * vec4((corner.x - 0.5) * screen.x, (corner.y - 0.5) * screen.y + screen.z, -screen.w, 1.0);
}`;
const FRAGMENT = `
precision mediump float; varying vec2 place; uniform sampler2D picture; uniform vec4 eye;
void main() { gl_FragColor = vec4(texture2D(picture, eye.xy + place * eye.zw).rgb, 1.0); }`;

/** Whether a headset is there. */
export async function hasHeadset() {
  return Boolean(await navigator.xr?.isSessionSupported?.("immersive-vr").catch(() => false));
}

/** Show `video`, whose picture has `layout`, in the headset; the running session, whose end is its "end" event. */
export async function enter(video, layout, { swap = false } = {}) {
  const session = await navigator.xr.requestSession("immersive-vr", { optionalFeatures: ["local-floor", "layers"] });
  const show = { session, video, layout, swap, way: null };
  try {
    const floor = await session.requestReferenceSpace("local-floor").catch(() => null);
    show.space = floor ?? (await session.requestReferenceSpace("local"));
    show.height = floor ? 1.5 : 0;
    if (!(await layered(show))) await drawn(show);
  } catch (problem) {
    await session.end().catch(() => {});
    throw problem;
  }
  session.addEventListener("select", () => { if (video.paused) video.play().catch(() => {}); else video.pause(); });
  return show;
}

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
    const layer = new XRMediaBinding(session).createQuadLayer(video, {
      space: show.space,
      layout: LAYER_LAYOUTS[layout],
      // The sides of a layer are halves of the quad's; a swap is told to the layer, which has a word for it.
      invertStereo: show.swap,
      width: screenWidth(video, layout),
      height: HEIGHT,
      transform: new XRRigidTransform({ x: 0, y: show.height, z: -DISTANCE, w: 1 }),
    });
    await session.updateRenderState({ layers: [layer] });
    show.way = "layer";
    show.layer = layer;
    return true;
  } catch {
    return false;
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
  Object.assign(show, { way: "drawn", gl, layer });
  const step = (_, frame) => {
    if (show.over) return;
    session.requestAnimationFrame(step);
    const pose = frame.getViewerPose(show.space);
    gl.bindFramebuffer(gl.FRAMEBUFFER, layer.framebuffer);
    gl.clearColor(0, 0, 0, 1);
    gl.clear(gl.COLOR_BUFFER_BIT);
    if (!pose || video.readyState < 2) return;
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGB, gl.RGB, gl.UNSIGNED_BYTE, video);
    gl.uniform4f(program.screen, screenWidth(video, show.layout), HEIGHT, show.height, DISTANCE);
    for (const view of pose.views) {
      const { x, y, width, height } = layer.getViewport(view);
      gl.viewport(x, y, width, height);
      gl.uniformMatrix4fv(program.projection, false, view.projectionMatrix);
      gl.uniformMatrix4fv(program.view, false, view.transform.inverse.matrix);
      gl.uniform4fv(program.eye, eyeOf(view.eye, show));
      gl.drawArrays(gl.TRIANGLE_STRIP, 0, 4);
    }
  };
  session.addEventListener("end", () => { show.over = true; });
  session.requestAnimationFrame(step);
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
