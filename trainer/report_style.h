// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace rollcall {

// The report's whole style sheet: light and dark by the reader's setting, printable.
inline constexpr const char* kReportStyle = R"css(
:root {
  color-scheme: light dark;
  --paper: #f7f7f5; --card: #ffffff; --ink: #1c1e21; --soft: #656b73; --line: #e3e4e1; --grid: #ecedea;
  --blue: #2f6fde; --orange: #d9730d; --violet: #8553d1; --teal: #0f8f8a; --pink: #c9447e;
  --good: #2a9d5c; --bad: #d64545; --muted: #b9bec5; --good-soft: #e5f5ec; --bad-soft: #fbe9e9;
  --warn: #a15c00; --warn-soft: #fdf1dc; --code: #f4f4f1;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #131518; --card: #1b1e22; --ink: #e6e8ea; --soft: #979ea7; --line: #2c3036; --grid: #262a2f;
    --blue: #6ea0f5; --orange: #f0a050; --violet: #b18cf0; --teal: #45c4bd; --pink: #ea7fac;
    --good: #4cc382; --bad: #f07676; --muted: #555c65; --good-soft: #16301f; --bad-soft: #3a1f20;
    --warn: #f0b95b; --warn-soft: #33280f; --code: #15171a;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 40px 28px 80px; }
h1 { font-size: 30px; line-height: 1.2; letter-spacing: -0.02em; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 19px; letter-spacing: -0.01em; margin: 44px 0 6px; }
h2 + p.lead { margin: 0 0 14px; }
p { margin: 0 0 12px; max-width: 78ch; }
.lead, .soft { color: var(--soft); } p.lead { max-width: 110ch; }
.top { display: flex; align-items: center; gap: 14px; flex-wrap: wrap; }
.pill { font-size: 12.5px; font-weight: 600; padding: 3px 11px; border-radius: 99px; background: var(--line); }
.pill.good { background: var(--good-soft); color: var(--good); } .pill.bad { background: var(--bad-soft); color: var(--bad); }
.pill.warn { background: var(--warn-soft); color: var(--warn); }
.hero { display: grid; grid-template-columns: minmax(0, 5fr) minmax(0, 7fr); gap: 16px; margin: 24px 0 0; }
.card, figure { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 18px 20px; margin: 0; min-width: 0; }
.hero .card { display: flex; flex-direction: column; justify-content: center; }
.eyebrow { font-size: 12px; font-weight: 600; letter-spacing: 0.05em; text-transform: uppercase; color: var(--soft); }
.change { display: flex; align-items: baseline; gap: 14px; margin: 6px 0 4px; font-variant-numeric: tabular-nums; }
.change .from { font-size: 26px; color: var(--soft); } .change .to { font-size: 46px; font-weight: 700; letter-spacing: -0.03em; line-height: 1.1; }
.change .arrow { color: var(--soft); font-size: 22px; }
.up { color: var(--good); } .down { color: var(--bad); }
.tiles { display: grid; grid-template-columns: repeat(4, minmax(0, 1fr)); gap: 1px; background: var(--line); border: 1px solid var(--line); border-radius: 12px; overflow: hidden; }
.tile { background: var(--card); padding: 14px 16px; } .tile b { display: block; font-size: 21px; font-weight: 650; letter-spacing: -0.01em; font-variant-numeric: tabular-nums; }
.tile span { color: var(--soft); font-size: 13px; }
.grid { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 16px; }
figure { padding: 16px 18px 10px; }
figcaption { display: flex; justify-content: space-between; align-items: baseline; gap: 14px; flex-wrap: wrap; margin-bottom: 8px; }
.keys { display: flex; flex-wrap: wrap; gap: 4px 14px; } .key { font-size: 12.5px; color: var(--soft); white-space: nowrap; }
.key i { display: inline-block; width: 10px; height: 10px; border-radius: 3px; margin-right: 6px; background: currentColor; }
svg { display: block; width: 100%; height: auto; overflow: visible; }
svg text { font: 11.5px system-ui, sans-serif; fill: var(--soft); font-variant-numeric: tabular-nums; } svg .grid { stroke: var(--grid); stroke-width: 1; display: inline; }
svg .axis { stroke: var(--muted); stroke-width: 1; } svg .line { fill: none; stroke: currentColor; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }
svg .faint { opacity: 0.28; stroke-width: 1.2; } svg .bar { stroke: currentColor; stroke-width: 1.6; opacity: 0.65; }
svg .over { stroke: var(--card); stroke-width: 1; opacity: 0.35; } svg .columns { opacity: 0.85; shape-rendering: crispEdges; }
svg .dot { fill: currentColor; stroke: var(--card); stroke-width: 1.5; } svg rect { fill: currentColor; }
.c1 { color: var(--blue); } .c2 { color: var(--orange); } .c3 { color: var(--violet); } .c4 { color: var(--teal); } .c5 { color: var(--pink); }
i.good, svg .good { color: var(--good); } i.bad, svg .bad { color: var(--bad); } i.muted, svg .muted { color: var(--muted); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: 14px; }
th, td { padding: 8px 12px; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { font-size: 12.5px; font-weight: 600; color: var(--soft); } tr:last-child td { border-bottom: 0; }
th:first-child, td:first-child { text-align: left; padding-left: 0; } th:last-child, td:last-child { padding-right: 0; }
td.text { text-align: left; white-space: normal; overflow-wrap: anywhere; color: var(--soft); } th.text { text-align: left; }
td .was { color: var(--soft); } td .was::after { content: " → "; }
code, pre { font: 12.5px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
pre { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; }
.notice { border-left: 3px solid var(--warn); background: var(--warn-soft); border-radius: 0 8px 8px 0; padding: 10px 14px; margin: 0 0 8px; }
.notice.bad { border-color: var(--bad); background: var(--bad-soft); }
.tabs { display: flex; gap: 6px; flex-wrap: wrap; margin: 0 0 12px; }
.tabs button { font: inherit; font-size: 13.5px; color: var(--soft); background: none; border: 1px solid var(--line); border-radius: 99px; padding: 3px 13px; cursor: pointer; }
.tabs button.on { color: var(--ink); background: var(--card); border-color: var(--muted); font-weight: 600; }
.pair { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 16px; align-items: start; }
.pair[hidden] { display: none; }
.side h3 { font-size: 14px; margin: 0 0 2px; display: flex; gap: 10px; align-items: center; } .side .facts { font-size: 13px; color: var(--soft); margin: 0 0 12px; }
.turn { border-top: 1px solid var(--line); padding: 10px 0; } .turn .who { font-size: 12px; font-weight: 600; color: var(--soft); margin-bottom: 3px; }
.turn .call { color: var(--blue); } .turn pre.out { background: var(--code); border-radius: 8px; padding: 8px 10px; margin-top: 5px; max-height: 260px; overflow: auto; }
.turn.error pre.out { background: var(--bad-soft); }
details { margin-top: 12px; } summary { cursor: pointer; color: var(--soft); }
details pre { background: var(--code); border-radius: 8px; padding: 12px 14px; margin-top: 10px; }
.split { display: flex; height: 12px; border-radius: 6px; overflow: hidden; margin: 10px 0 12px; } .split i { background: currentColor; }
footer { margin-top: 48px; color: var(--soft); font-size: 13px; }
@media (max-width: 800px) { .hero, .grid, .pair { grid-template-columns: minmax(0, 1fr); } .tiles { grid-template-columns: repeat(2, minmax(0, 1fr)); } main { padding: 24px 16px 60px; } }
@media print { .tabs { display: none; } .pair[hidden] { display: grid !important; } figure, .card { break-inside: avoid; } }
)css";

// Tabs: without a script every transcript is shown.
inline constexpr const char* kReportScript = R"js(
const tabs = [...document.querySelectorAll('.tabs button')], pairs = [...document.querySelectorAll('.pair')];
const show = n => { pairs.forEach((p, i) => p.hidden = i !== n); tabs.forEach((t, i) => t.classList.toggle('on', i === n)); };
tabs.forEach((t, i) => t.onclick = () => show(i));
if (tabs.length) show(0);
)js";

}  // namespace rollcall
