// What may stand between the player and its picture: a server that is away, a part that is not there yet, a browser that
// cannot play it. The viewer is told which; what can come by itself is asked for until it is there, and goes on where it
// was.
const AGAIN_MILLISECONDS = 3000;
const STANDS_MILLISECONDS = 2500; // a picture that stands still for so long may have no server behind it
const ANSWER_MILLISECONDS = 10_000;

const LOST = "The connection to the server is lost. The film goes on by itself when it is back.";
const EARLY = "The picture is not there yet.";
const GONE = "The picture is not there any more.";
const CANNOT = "This browser cannot play the picture.";

export class Line {
  constructor(player) {
    this.player = player;
    const { video } = player;
    // Whether it is to play: a browser that gives up has paused before it says so.
    video.addEventListener("play", () => { this.playing = true; });
    video.addEventListener("pause", () => { if (!video.error) this.playing = false; });
    video.addEventListener("waiting", () => this.stands());
    video.addEventListener("playing", () => { clearTimeout(this.standing); this.hush(); });
    video.addEventListener("loadeddata", () => { this.recovered = false; });
  }

  /** From now on the picture comes from `address`, or from nowhere; `load(at, play)` begins it anew at a place of it. */
  follow(address, load, playing = false) {
    clearTimeout(this.timer);
    clearTimeout(this.standing);
    if (address !== this.address) this.failed = null;
    Object.assign(this, { address, load, playing, broken: null, away: false, gone: false, place: null });
    this.turn = (this.turn ?? 0) + 1;
  }

  /** hls.js tells what went wrong; what it mends by itself is not told. */
  heard(data) {
    const { hls } = this.player;
    if (!data.fatal) return;
    if (data.type === "mediaError" && !this.recovered) {
      this.recovered = true;
      hls.recoverMediaError();
      return;
    }
    if (data.type !== "networkError") {
      this.tell(CANNOT);
      return;
    }
    const code = data.response?.code;
    const early = data.details.startsWith("manifestLoad") && data.networkDetails?.getResponseHeader("Retry-After");
    this.broken = hls.levels.length ? () => hls.startLoad() : () => this.anew();
    if (code === 0 || code >= 500 || data.details.endsWith("TimeOut")) this.lose();
    else if (early) this.early(() => this.anew()); // it takes a 404 for the last word
    else this.ask(code >= 400 ? GONE : CANNOT);
  }

  /** A browser that plays by itself says of what it cannot reach the same as of what it cannot read. */
  broke() {
    this.broken = () => this.anew();
    this.ask();
  }

  /** Whether it plays, or would. */
  get plays() { return this.broken ? this.playing : !this.player.video.paused; }

  anew() { this.load(this.place ?? this.player.video.currentTime, this.playing); }

  /** Where somebody wants to be: what is broken goes on there. */
  wants(seconds, play) {
    if (this.broken) Object.assign(this, { place: seconds, playing: play });
  }

  /** The picture waits for data, and nobody may have told why. */
  stands() {
    clearTimeout(this.standing);
    if (this.away) this.tell(LOST);
    else if (this.address) this.standing = setTimeout(() => this.ask(), STANDS_MILLISECONDS);
  }

  get still() { return this.player.classList.contains("waiting-for-data"); }

  /** The server is away: what is loaded plays on, then it is said. */
  lose() {
    const { video } = this.player;
    this.away = true;
    if (video.error || video.readyState < 3) this.tell(LOST);
    this.later(() => this.ask());
  }

  early(then) {
    this.tell(EARLY);
    this.later(then);
  }

  /** After a moment; what a seek asks for goes first. */
  later(act) {
    clearTimeout(this.timer);
    const { player } = this;
    this.timer = setTimeout(() => (player.hidden || player.aim ? this.later(act) : act()), AGAIN_MILLISECONDS);
  }

  /** The server's answer, null where there is none. */
  async reach() {
    const asked = { method: "HEAD", cache: "no-store", signal: AbortSignal.timeout(ANSWER_MILLISECONDS) };
    const answer = await fetch(this.address ?? location.pathname, asked).catch(() => null);
    return answer?.status < 500 ? answer : null;
  }

  /** Whether the server is there, and the picture; `last` is to be said where both are and it fails all the same. */
  async ask(last = CANNOT) {
    const { turn } = this;
    const answer = await this.reach();
    if (turn !== this.turn) return;
    if (!answer) {
      this.lose();
      return;
    }
    const { away } = this;
    this.away = false;
    if (away) this.hush();
    if (answer.ok) this.goOn(away, last);
    else if (!answer.headers.has("Retry-After")) this.end();
    else if (this.broken) this.early(() => this.ask());
    else this.stands();
  }

  /** There is nothing under this address any more: whoever knows the job may know another one. */
  end() {
    this.gone = true;
    this.tell(GONE);
    this.player.dispatchEvent(new CustomEvent("gone", { bubbles: true }));
  }

  /** Whether there is nothing any more where it looks, and what is asked for now lies elsewhere, or is the file. */
  isGone({ hls, film }) {
    const folder = (hls ?? film)?.replace(/[^/]*$/, "");
    return this.gone && Boolean(folder) && (!this.address.startsWith(folder) || (!hls && this.address.endsWith(".m3u8")));
  }

  goOn(away, last) {
    const { player, broken } = this;
    const { currentTime } = player.video;
    if (broken) {
      // Where the server was there all the time it is tried once more.
      const again = !away && this.failed !== null && Math.abs(currentTime - this.failed) < 1;
      this.failed = currentTime;
      if (again) this.tell(last);
      else broken();
    } else if (this.still) {
      // hls.js asks more and more seldom; a browser may have ceased to.
      if (away && player.hls) player.hls.startLoad();
      else if (away) this.later(() => { if (this.still) this.anew(); });
      this.stands();
    }
  }

  /** The answer to `ask()`, which is asked again when the server is back, as long as it is `wanted()`; `text` meanwhile. */
  async until(ask, wanted, text) {
    for (;;) {
      this.tell(text);
      try {
        return await ask();
      } catch (problem) {
        if (!(problem instanceof TypeError)) throw problem; // the server's own words
        do {
          if (!wanted()) throw problem;
          this.tell(LOST);
          await new Promise((resolve) => setTimeout(resolve, AGAIN_MILLISECONDS));
        } while (!(await this.reach()));
      }
    }
  }

  /** Whether what is to lie at `address` is `wanted()` when it is there; a server that waited in vain is asked again. */
  async comes(address, wanted, text) {
    while (wanted()) {
      const { status } = await this.until(() => fetch(`${address}?wait=25`), wanted, text);
      if (status === 200) break;
      if (status >= 400 && status < 500) throw new Error(GONE);
      await new Promise((resolve) => setTimeout(resolve, 500));
    }
    return wanted();
  }

  /** Say why there is no picture; what is found again and again is said once. */
  tell(text) {
    const { curtain } = this.player;
    if (curtain.hidden || curtain.textContent !== text) this.player.say(text, true);
  }

  hush() {
    const { curtain } = this.player;
    if (curtain.textContent === LOST) curtain.hidden = true;
  }
}
