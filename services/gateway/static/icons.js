// Pictures on the player's buttons and menus.
const icon = (shapes) => `<svg viewBox="0 0 20 20" aria-hidden="true">${shapes}</svg>`;
const lines = (path) => `<path class="lines" d="${path}"/>`;
const SPEAKER = '<path d="M2.5 7.5v5h3L10 16V4L5.5 7.5z"/>';

export const ICONS = {
  play: icon('<path d="M5 3v14l12-7z"/>'),
  pause: icon('<path d="M5 3h3.5v14H5zM11.5 3H15v14h-3.5z"/>'),
  full: icon('<path d="M3 3h5v2H5v3H3zm9 0h5v5h-2V5h-3zM3 12h2v3h3v2H3zm12 0h2v5h-5v-2h3z"/>'),
  loud: icon(SPEAKER + lines("M12.5 7.2a4 4 0 0 1 0 5.6M14.8 5a7 7 0 0 1 0 10")),
  silent: icon(SPEAKER + lines("M12.8 7.6l4.8 4.8m0-4.8l-4.8 4.8")),
  swap: icon(lines("M3 7h13l-3-3M17 13H4l3 3")),
  View: icon('<circle class="lines" cx="7" cy="10" r="5"/><circle class="lines" cx="13" cy="10" r="5"/>'),
  Sound: icon(lines("M3 8v4M6.5 5v10M10 7.5v5M13.5 3.5v13M17 8v4")),
  Subtitles: icon('<rect class="lines" x="2" y="4" width="16" height="12" rx="2"/>' + lines("M5 9h4m2.5 0H15M5 12.5h6.5m2.5 0h1")),
  Chapters: icon(lines("M7.5 5H17M7.5 10H17M7.5 15H17M3 5h1.6M3 10h1.6M3 15h1.6")),
};
