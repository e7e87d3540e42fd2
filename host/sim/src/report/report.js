"use strict";
(() => {
  const COLOURS = 8;
  const charts = JSON.parse(document.getElementById("chart-data").textContent);
  const legend = [...document.querySelectorAll(".legend button")];
  const shown = legend.map(() => true);
  const policies = legend.length;
  const config = { displayModeBar: false, responsive: true, doubleClick: "reset", scrollZoom: false };
  const variable = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  // Colours of the page's theme, laid over the data and axes that the page carries.
  function themed(plot) {
    const ink = variable("--ink"), soft = variable("--soft"), grid = variable("--grid"), line = variable("--line"), card = variable("--card");
    const data = plot.data.map((trace, row) => {
      const colour = row < policies ? variable(`--p${row % COLOURS}`) : soft;
      const visible = row >= policies || shown[row];
      const styled = { ...trace, visible };
      if (trace.type === "bar") styled.marker = { color: colour, line: { width: 0 } };
      else styled.line = { ...trace.line, color: colour };
      return styled;
    });
    const axis = (own) => ({
      ...own, automargin: true, gridcolor: grid, linecolor: line, zeroline: false, tickcolor: line, ticks: "",
      tickfont: { color: soft, size: 12 },
      title: { ...own.title, font: { color: soft, size: 13 }, standoff: 12 },
      hoverformat: own.hoverformat,
    });
    const family = getComputedStyle(document.body).fontFamily;
    const bars = plot.data.some((trace) => trace.type === "bar");
    const layout = {
      ...plot.layout, autosize: true, hovermode: "x unified", margin: { l: 56, r: 14, t: 10, b: 48 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { family, color: ink, size: 13 },
      hoverlabel: { bgcolor: card, bordercolor: line, font: { family, color: ink, size: 13 }, namelength: 40 },
      bargap: 0.28, bargroupgap: 0.06, dragmode: bars ? false : "zoom",
      xaxis: { ...axis(plot.layout.xaxis), showgrid: false, showline: true, hoverformat: bars ? undefined : ".1f", fixedrange: bars, showspikes: !bars, spikecolor: soft, spikethickness: 1, spikedash: "dot" },
      yaxis: { ...axis(plot.layout.yaxis), fixedrange: true },
    };
    return { data, layout };
  }

  const chosen = Object.fromEntries(charts.map((chart) => [chart.id, 0]));
  function draw(chart) {
    const { data, layout } = themed(chart.plots[chosen[chart.id]]);
    return Plotly.react(chart.id, data, layout, config);
  }
  const drawAll = () => Promise.all(charts.map(draw));

  legend.forEach((button, row) => button.addEventListener("click", () => {
    shown[row] = !shown[row];
    button.setAttribute("aria-pressed", String(shown[row]));
    drawAll();
  }));
  for (const group of document.querySelectorAll(".switch")) {
    const chart = charts.find((one) => one.id === group.dataset.chart);
    const buttons = [...group.querySelectorAll("button")];
    buttons.forEach((button) => button.addEventListener("click", () => {
      chosen[chart.id] = Number(button.dataset.variant);
      buttons.forEach((other) => other.setAttribute("aria-pressed", String(other === button)));
      draw(chart);
    }));
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  drawAll().then(() => document.body.setAttribute("data-drawn", "true"));
})();
