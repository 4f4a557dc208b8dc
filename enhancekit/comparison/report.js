/* Each picture of the report: which two versions are seen, and the viewer. */

const near = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) {
      if (isIntersecting) target.show();
      else target.hide();
    }
  },
  { rootMargin: "800px" },
);

for (const section of document.querySelectorAll(".picture")) {
  const versions = JSON.parse(section.querySelector("script").textContent);
  const images = [...section.querySelectorAll(".view img")];
  const selects = [...section.querySelectorAll("select")];
  const output = section.querySelector("output");
  const viewer = new Viewer(section.querySelector(".view"), {
    onzoom: (percent) => {
      output.textContent = `${percent}%`;
    },
  });
  viewer.wheel(false);
  const choose = () =>
    Promise.all(
      images.map((image, i) => {
        const version = versions[selects[i].selectedIndex];
        image.src = version.address;
        image.alt = version.name;
        return image.decode();
      }),
    );
  section.show = async () => {
    await choose();
    if (viewer.width) return;
    const [width, height] = ["naturalWidth", "naturalHeight"].map((side) => Math.max(...images.map((i) => i[side])));
    viewer.view.style.aspectRatio = `${width} / ${height}`;
    viewer.sized(width, height);
  };
  // what is far away needs no memory for its pixels
  section.hide = () => images.forEach((image) => image.removeAttribute("src"));
  selects.forEach((select) => select.addEventListener("change", choose));
  const actions = {
    in: () => viewer.zoomTo(viewer.scale * 1.25),
    out: () => viewer.zoomTo(viewer.scale / 1.25),
    fit: () => viewer.fit(),
    full: () => viewer.full(),
  };
  for (const button of section.querySelectorAll("button")) {
    button.addEventListener("click", actions[button.dataset.do]);
  }
  near.observe(section);
}
