// What somebody reads stays where it is on the screen while rows come in above it. For lists that are not windowed.

/** `scroller` scrolls; rows carry a `data-row` that does not change. Call it before the rows change, and the result after. */
export function placeOf(scroller: Element): () => void {
  const edge = scroller.getBoundingClientRect().top;
  const first = [...scroller.querySelectorAll<HTMLElement>("[data-row]")].find((row) => row.getBoundingClientRect().bottom > edge);
  const [name, before] = [first?.dataset.row, first?.getBoundingClientRect().top ?? 0];
  if (scroller.scrollTop < 1 || name === undefined) return () => {}; // at the top the newest are wanted
  return () => {
    const now = scroller.querySelector(`[data-row="${CSS.escape(name)}"]`);
    if (now) scroller.scrollTop += now.getBoundingClientRect().top - before;
  };
}
