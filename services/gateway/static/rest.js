// Where the picture has the whole screen or the whole window, the bar lies over it. It goes, and the pointer with it, while
// a film plays and nobody touches anything.
const REST_MILLISECONDS = 3000;
const TOUCHES = ["pointermove", "pointerdown", "pointerup", "keydown", "focusin", "focusout", "fullscreenchange"];
const TURNS = ["play", "pause", "ended"];

export class Rest {
  constructor(player) {
    this.player = player;
    this.note = (event) => this.touched(event);
    for (const name of TOUCHES) document.addEventListener(name, this.note, true);
    this.swallow = (event) => this.pressed(event);
    document.addEventListener("click", this.swallow, true);
    for (const name of TURNS) player.video.addEventListener(name, this.note);
    this.sizes = new ResizeObserver(() => this.lift());
    for (const box of [player.screen, player.bar]) this.sizes.observe(box);
    this.wake();
  }

  leave() {
    clearTimeout(this.timer);
    this.sizes.disconnect();
    for (const name of TOUCHES) document.removeEventListener(name, this.note, true);
    document.removeEventListener("click", this.swallow, true);
  }

  touched(event) {
    if (event.type === "pointermove") {
      // A pointer that did not move: only what lies below it has changed.
      const place = `${event.screenX} ${event.screenY}`;
      if (place === this.place) return;
      this.place = place;
    }
    if (event.type === "pointerdown") this.called = event.pointerType === "touch" && this.resting;
    this.wake();
  }

  /** A finger that called the bar back has done its part: it pauses nothing, and presses nothing that it did not see. */
  pressed(event) {
    if (!this.called || !event.detail) return;
    this.called = false;
    event.preventDefault();
    event.stopPropagation();
  }

  get resting() { return this.player.classList.contains("resting"); }

  /** Whether the picture has all there is. */
  get large() { return document.fullscreenElement === this.player || Boolean(this.player.closest(".theatre")); }

  /** Whether somebody is at something: a menu, the scrubber, the list of keys, or a button by keyboard. */
  get held() {
    const { activeElement: it } = document;
    const { screen, scrubbing, help } = this.player;
    return scrubbing || help?.hidden === false || (it !== screen && it !== document.body && it?.matches(":focus-visible, select"));
  }

  /** Subtitles have come: they make room from now on, whatever shape they take. */
  watch(words) { this.sizes.observe(words); }

  wake() {
    clearTimeout(this.timer);
    this.show(true);
    this.timer = setTimeout(() => this.rest(), REST_MILLISECONDS);
  }

  rest() {
    const { video } = this.player;
    if (this.large && !video.paused && !video.ended && !this.held) this.show(false);
  }

  show(shown) {
    this.player.classList.toggle("resting", !shown);
    this.lift();
  }

  /** Subtitles make room for the bar while it lies over the picture. */
  lift() {
    const { screen, bar } = this.player;
    const words = screen.querySelector(".words");
    const over = words && this.large && !this.resting ? words.getBoundingClientRect().bottom - bar.getBoundingClientRect().top : 0;
    screen.style.setProperty("--lift", `${Math.max(0, over)}px`);
  }
}
