// One colour a class, [r, g, b], the same whatever the number of classes; as deploy/python/drawing.py.
const GOLDEN_ANGLE = 0.381966;                  // of a turn: hues of neighbouring classes lie far apart
const LIGHTNESS = [0.5, 0.35, 0.68];
const BRIGHT = 140;                             // of a colour, from which text on it is black

export function colourOf(index) {
  const hue = (index * GOLDEN_ANGLE) % 1, light = LIGHTNESS[Math.trunc(index / 7) % 3], saturation = Math.trunc(index / 21) % 2 ? 0.6 : 0.9;
  const high = light <= 0.5 ? light * (1 + saturation) : light + saturation - light * saturation, low = 2 * light - high;
  return [1 / 3, 0, -1 / 3].map((shift) => {
    const turn = hue + shift - Math.floor(hue + shift);
    const part = turn < 1 / 6 ? 6 * turn : turn < 1 / 2 ? 1 : turn < 2 / 3 ? 6 * (2 / 3 - turn) : 0;
    return Math.round(255 * (low + (high - low) * part));
  });
}

export const css = (colour) => `rgb(${colour.join()})`;

export const textOn = ([red, green, blue]) => (0.3 * red + 0.59 * green + 0.11 * blue < BRIGHT ? "white" : "black");
