// Subtitles in a headset: a board below the film, a little nearer than the screen, the same for both eyes.
const ACROSS = 1024;
const DOWN = 192;
const LINE = 56;

export const SIGN = { width: 2, height: (2 * DOWN) / ACROSS, pixels: [ACROSS, DOWN] };

export class Sign {
  constructor() {
    this.canvas = Object.assign(document.createElement("canvas"), { width: ACROSS, height: DOWN });
    this.text = null;
  }

  /** Write `text`; whether that is something new. */
  write(text) {
    if (text === this.text) return false;
    this.text = text;
    const context = this.canvas.getContext("2d");
    context.clearRect(0, 0, ACROSS, DOWN);
    context.font = `500 ${LINE * 0.75}px sans-serif`;
    context.textAlign = "center";
    context.textBaseline = "middle";
    // Three lines are as many as are read; the last ones are at the bottom, where they are looked for.
    const lines = text.split("\n").filter(Boolean).slice(-3);
    lines.forEach((line, index) => {
      const y = DOWN - LINE * (lines.length - index - 0.5) - 8;
      const width = Math.min(ACROSS, context.measureText(line).width + 32);
      context.fillStyle = "rgb(0 0 0 / 0.6)";
      context.fillRect((ACROSS - width) / 2, y - LINE / 2, width, LINE);
      context.fillStyle = "#fff";
      context.fillText(line, ACROSS / 2, y, ACROSS - 32);
    });
    return true;
  }
}
