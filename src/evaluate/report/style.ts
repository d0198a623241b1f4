/** How the report looks, by daylight, at night, on a telephone and on paper. */
import { rampStyle } from './ramp.js';

export const style = `
:root{color-scheme:light dark;--page:#fbfbfa;--card:#fff;--ink:#1c2024;--quiet:#555c64;--line:#d5d8dc;--faint:#ebedef;--accent:#0b5cad;--blue:#0b62b5;--orange:#b04a00;--green:#00704f;--violet:#7d3f98;--grey:#555c64;--broken:#8a8f96}
@media (prefers-color-scheme:dark){:root{--page:#15181c;--card:#1b1f24;--ink:#e6e8ea;--quiet:#a4acb5;--line:#3a4149;--faint:#272c32;--accent:#7ab8f5;--blue:#6db3f8;--orange:#f0a15a;--green:#4fc79e;--violet:#cf9be6;--grey:#a4acb5;--broken:#6c737b}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
main{max-width:68rem;margin:0 auto;padding:2rem 1.5rem 4rem}
h1,h2,h3{line-height:1.25;margin:0;font-weight:600}
h1{font-size:1.05rem;color:var(--quiet);font-weight:500}
h2{font-size:1.2rem;margin:0 0 .75rem}
h3{font-size:1rem}
p,ul,dl,figure{margin:0 0 .75rem}
section{margin-top:2.75rem}
.answer{font-size:1.55rem;line-height:1.3;margin:.5rem 0 1rem;max-width:46rem;text-wrap:balance}
.answer b{font-weight:650}
.remarks{padding-left:1.1rem;max-width:50rem}
.remarks li{margin-bottom:.35rem}
.remarks b{font-weight:600}
.figure{white-space:nowrap}
.note{color:var(--quiet);font-size:.875rem;max-width:50rem;margin-top:.6rem}
.scroll{overflow-x:auto;max-width:100%}
:focus-visible{outline:2px solid var(--accent);outline-offset:2px}
table{border-collapse:collapse;width:100%;font-size:.875rem;background:var(--card)}
th,td{padding:.42rem .6rem;border-bottom:1px solid var(--faint);text-align:right;white-space:nowrap;font-weight:400}
tbody th{text-align:left;white-space:normal;min-width:13.5rem;position:sticky;left:0;background:var(--card)}
thead th{vertical-align:bottom;white-space:normal;color:var(--quiet);border-bottom:1px solid var(--line);min-width:5.2rem;overflow-wrap:normal}
thead th:first-child{text-align:left}
tbody:first-of-type th,tbody:first-of-type td{border-bottom:1px solid var(--line)}
tbody:last-of-type tr:hover>*{background:var(--faint)}
td strong{font-weight:700;text-decoration:underline 2px var(--accent);text-underline-offset:3px}
thead button{all:unset;cursor:pointer;color:var(--ink);box-sizing:border-box}
thead button:hover{text-decoration:underline}
thead button:focus-visible{outline:2px solid var(--accent);outline-offset:3px}
thead button::after{content:"\u00a0↕";color:var(--quiet)}
[aria-sort=ascending] button::after{content:"\u00a0↑"}
[aria-sort=descending] button::after{content:"\u00a0↓"}
small{color:var(--quiet);font-size:.8rem}
.aside{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap}
td{position:relative}
svg{display:block}
.sign{display:inline-block;vertical-align:-2px;flex:none}
.keys{display:flex;flex-wrap:wrap;gap:.3rem 1.3rem;font-size:.875rem}
.mark{stroke:var(--page);stroke-width:1}
.e4m3fn{--tone:var(--blue)}.e5m2{--tone:var(--orange)}.int8{--tone:var(--green)}.f16{--tone:var(--violet)}.f32{--tone:var(--grey)}
.mark{fill:var(--tone)}
.whisker{fill:none;stroke:var(--tone,var(--grey));stroke-width:1.5}
.axis text,.digits text{font-size:12px;text-anchor:middle}
.axis text{fill:var(--ink)}
.axis .end{text-anchor:end}
.axis .quiet{fill:var(--quiet)}
.axis path:not([class]){stroke:var(--quiet)}
.rule{stroke:var(--line);fill:none}.faint{stroke:var(--faint);fill:none}
.whole{stroke:var(--line);stroke-width:5}.part{stroke:var(--quiet);stroke-width:5}
.choose{margin-top:1rem}
select{font:inherit;color:inherit;background:var(--card);border:1px solid var(--line);border-radius:4px;padding:.3rem .5rem;max-width:100%}
.readout{font-size:.875rem;color:var(--quiet)}
.picture{margin:1.25rem 0}
.picture figcaption{margin-bottom:.35rem}
.away{display:none}
.sides{display:flex;flex-wrap:wrap;gap:.5rem 2.5rem}
.side{max-width:100%;min-width:0}
.side p{font-size:.875rem;margin-bottom:.25rem}
.cells rect{width:1px;height:1px;stroke:var(--page);stroke-width:1px;vector-effect:non-scaling-stroke}
.cells .at{stroke:var(--ink);stroke-width:2.5px}
.digits{pointer-events:none}
.hx,.cells .hx{fill:var(--broken)}.nx{fill:#000}
.key{display:inline-block;vertical-align:-2px}
.made{display:grid;grid-template-columns:max-content 1fr;gap:.3rem 1.5rem}
.made dt{color:var(--quiet)}.made dd{margin:0}
@media (max-width:40rem){main{padding:1.25rem 1rem 3rem}.answer{font-size:1.25rem}tbody th{min-width:8.5rem;max-width:9.5rem}.made{grid-template-columns:1fr}.made dd{margin-bottom:.5rem}}
@media print{body{font-size:11pt}main{max-width:none;padding:0}.away{display:block}.choose,.readout,thead button::after{display:none}.scroll{overflow:visible}svg{max-width:100%;height:auto}.picture,figure,tr{break-inside:avoid}*{print-color-adjust:exact;-webkit-print-color-adjust:exact}table{font-size:8pt}th,td{padding:.2rem .3rem}thead th{min-width:0}}
${rampStyle}`;
