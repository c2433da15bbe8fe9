// The span of time that charts show, in seconds; undefined: all there is.

class Zoom {
  range = $state.raw<[number, number]>();
}

export const zoom = new Zoom();
