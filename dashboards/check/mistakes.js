// Mistakes that Grafana would pass over without a word, or fail on only when
// somebody looks. Each changes a dashboard that is right.

/** @typedef {any} Dashboard */

/** @param {Dashboard} d @param {string} type */
const first = (d, type) => d.panels.find((/** @type {any} */ p) => p.type === type);
/** @param {Dashboard} d */
const series = (d) => first(d, 'timeseries');
/** @param {Dashboard} d */
const defaults = (d) => series(d).fieldConfig.defaults;
/** @param {Dashboard} d @param {string} id */
const override = (d, id) => d.panels.flatMap((/** @type {any} */ p) => p.fieldConfig?.overrides ?? [])
  .flatMap((/** @type {any} */ o) => o.properties).find((/** @type {any} */ p) => p.id === id);

/** @type {Record<string, (d: Dashboard) => void>} */
export const mistakes = {
  'a misspelt side of a place': (d) => { series(d).gridPos.hight = 8; },
  'a place without a height': (d) => { delete series(d).gridPos.h; },
  'a colour mode that is none': (d) => { defaults(d).color.mode = 'palette-classical'; },
  'schemaVersion as a string': (d) => { d.schemaVersion = '42'; },
  'another schemaVersion': (d) => { d.schemaVersion = 41; },
  'a misspelt list of thresholds': (d) => { defaults(d).thresholds.stepz = defaults(d).thresholds.steps; delete defaults(d).thresholds.steps; },
  'a threshold as a string': (d) => { defaults(d).thresholds.steps[0].value = '90'; },
  'refresh as a number': (d) => { d.refresh = 5; },
  'when to show points: a word that is none': (d) => { defaults(d).custom.showPoints = 'sometimes'; },
  'a misspelt way of reducing': (d) => { first(d, 'stat').options.reduceOption = first(d, 'stat').options.reduceOptions; delete first(d, 'stat').options.reduceOptions; },
  'a further option that a stat does not have': (d) => { first(d, 'stat').options.sparkline = true; },
  'a graph mode that is none': (d) => { first(d, 'stat').options.graphMode = 'bars'; },
  'where the names of bars are: a place that is none': (d) => { first(d, 'bargauge').options.namePlacement = 'right'; },
  'an option of a stat on a bar gauge': (d) => { first(d, 'bargauge').options.graphMode = 'none'; },
  'a custom field that a time series does not have': (d) => { defaults(d).custom.fill = 10; },
  'a custom field that only a time series has, on a state timeline': (d) => { first(d, 'state-timeline').fieldConfig.defaults.custom.drawStyle = 'line'; },
  'custom fields on a stat': (d) => { first(d, 'stat').fieldConfig.defaults.custom = { lineWidth: 1 }; },
  'a line width as a string': (d) => { defaults(d).custom.lineWidth = '1'; },
  'a stacking mode that is none': (d) => { defaults(d).custom.stacking.mode = 'stacked'; },
  'a thresholds style that is none': (d) => { defaults(d).custom.thresholdsStyle.mode = 'lines'; },
  'a misspelt override': (d) => { override(d, 'custom.lineWidth').id = 'custom.linewidth'; },
  'an override without its custom.': (d) => { override(d, 'custom.lineWidth').id = 'lineWidth'; },
  'an override with a value of another kind': (d) => { override(d, 'thresholds').value = [0.3, 0.5]; },
  'an override\'s colour as a string': (d) => { override(d, 'color').value = 'red'; },
  'a matcher that is none': (d) => { d.panels.flatMap((/** @type {any} */ p) => p.fieldConfig?.overrides ?? [])[0].matcher.id = 'byname'; },
  'a type of panel from Grafana 6': (d) => { series(d).type = 'graph'; },
  'a panel without a description': (d) => { delete series(d).description; },
  'a panel with another data source': (d) => { series(d).datasource.uid = 'prometheus'; },
  'a query without a refId': (d) => { delete series(d).targets[0].refId; },
  'a misspelt expression': (d) => { series(d).targets[0].expression = series(d).targets[0].expr; delete series(d).targets[0].expr; },
  'an alert in a panel, as before Grafana 11': (d) => { series(d).alert = { conditions: [] }; },
  'a legend in a place that is none': (d) => { series(d).options.legend.placement = 'left'; },
  'a tooltip mode that is none': (d) => { series(d).options.tooltip.mode = 'all'; },
  'a value mapping of an unknown kind': (d) => { first(d, 'state-timeline').fieldConfig.defaults.mappings[0].type = 'values'; },
  'a value mapping with a misspelt colour': (d) => { first(d, 'state-timeline').fieldConfig.defaults.mappings[0].options[0].colour = 'red'; },
  'a crosshair as a word': (d) => { d.graphTooltip = 'shared'; },
  'a crosshair that is none': (d) => { d.graphTooltip = 7; },
  'a variable of an unknown kind': (d) => { d.templating.list[1].type = 'label'; },
  'when to read a variable again: a number that means nothing': (d) => { d.templating.list[1].refresh = 9; },
  'a variable that takes several, as a string': (d) => { d.templating.list[1].multi = 'true'; },
  'an annotation\'s query at the top, as before Grafana 9': (d) => { d.annotations.list[1].expr = d.annotations.list[1].target.expr; },
  'an annotation without a colour': (d) => { delete d.annotations.list[1].iconColor; },
  'rows as before Grafana 5': (d) => { d.rows = []; },
  'a misspelt name at the top': (d) => { d.timePicker = {}; },
};
