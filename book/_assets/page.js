/* Two labels that the theme and its extensions put over visible words: readers who hear the page would hear others than
 * those who see it. */
document.addEventListener("DOMContentLoaded", () => {
  for (const element of document.querySelectorAll("summary[aria-label='Toggle hidden content'], .search-button-field")) {
    element.removeAttribute("aria-label");
  }
});
