// A finished film outlives its stream, which is kept for some days. Once it is announced no more, what has been loaded of it
// plays for a day yet; where the browser plays the file, that goes on in its place, and lasts.

/** The stream of the player's film is not announced any more, if it ever was. */
export function outlive(player) {
  if (!player.hls && player.sound) {
    player.sound.closest("label").remove();
    player.sound = null;
  }
  if (!player.dataset.hls) return;
  delete player.dataset.hls;
  // A file has no choice of sound: whoever has one hears the film to its end.
  if (player.whole || player.sound || !player.direct()) return;
  player.playFilm(player.now, player.line.plays);
}
