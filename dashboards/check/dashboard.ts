// What the dashboard may hold: Grafana's own types, made strict where they are
// loose. Grafana leaves a panel's options and custom fields open, since any
// plugin may bring its own; here each panel has those of its type, so that a
// misspelt one is an error and not something that Grafana passes over.

import type * as grafana from '@grafana/schema';
import type * as barGauge from '@grafana/schema/dist/esm/raw/composable/bargauge/panelcfg/x/BarGaugePanelCfg_types.gen';
import type * as stat from '@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen';
import type * as stateTimeline from '@grafana/schema/dist/esm/raw/composable/statetimeline/panelcfg/x/StateTimelinePanelCfg_types.gen';
import type * as timeSeries from '@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen';

/** A type as JSON has it: Grafana's enums are TypeScript's, which no literal satisfies. */
type Json<T> = unknown extends T ? unknown
  : T extends string ? `${T}`
  : T extends number ? (`${T}` extends `${infer N extends number}` ? N : never)
  : T extends object ? { [K in keyof T]: Json<T[K]> }
  : T;

/** Without index signatures, which would let every name pass. */
type Known<T> = { [K in keyof T as string extends K ? never : K]: T[K] };

interface DataSource {
  type: 'prometheus';
  uid: '${DS_PROMETHEUS}';
}

/** What Grafana's Prometheus plugin saves; its types are not in @grafana/schema. */
interface Query {
  refId: string;
  datasource: DataSource;
  expr: string;
  legendFormat: string;
  editorMode: 'code';
  instant: boolean;
  range: boolean;
}

type Fields<Custom> = Omit<grafana.FieldConfig, 'custom'> & { custom?: Custom };

/** Grafana takes any name and any value as an override, and passes over those that it does not know. */
type Property<Custom> =
  | { [K in keyof Fields<Custom> & string]-?: { id: K; value: NonNullable<Fields<Custom>[K]> } }[Exclude<keyof Fields<Custom>, 'custom'> & string]
  | { [K in keyof Custom & string]-?: { id: `custom.${K}`; value: NonNullable<Custom[K]> } }[keyof Custom & string];

interface Override<Custom> {
  matcher: { id: 'byName' | 'byRegexp' | 'byFrameRefID'; options: string };
  properties: Property<Custom>[];
}

interface Panel<Type extends string, Options, Custom> extends
  Omit<grafana.Panel, 'id' | 'title' | 'description' | 'gridPos' | 'type' | 'options' | 'fieldConfig' | 'targets' | 'datasource'>,
  Required<Pick<grafana.Panel, 'id' | 'title' | 'description' | 'gridPos'>> {
  type: Type;
  datasource: DataSource;
  targets: Query[];
  options: Options;
  fieldConfig: { defaults: Fields<Custom>; overrides: Override<Custom>[] };
}

interface Row extends Omit<grafana.RowPanel, 'panels'> {
  panels: [];
}

// Grafana writes some things that its own types do not have: a query's text
// again as a variable's definition, an empty choice, and what an export asks at
// its import. Prometheus's annotations have formats.

type Variable = Omit<grafana.VariableModel, 'current'> & {
  current: Record<string, never> | grafana.VariableModel['current'];
  definition?: string;
};

type Annotation = Omit<grafana.AnnotationQuery, 'target' | 'snapshotData'> & {
  target?: { refId: 'Anno'; expr: string; interval: string };
  titleFormat?: string;
  textFormat?: string;
  tagKeys?: string;
  useValueForTime?: boolean;
};

interface Input {
  name: 'DS_PROMETHEUS';
  label: string;
  description: string;
  type: 'datasource';
  pluginId: 'prometheus';
  pluginName: string;
}

interface Requirement {
  type: 'grafana' | 'datasource' | 'panel';
  id: string;
  name: string;
  version: string;
}

export type Dashboard = Json<
  Known<Omit<grafana.Dashboard, 'panels' | 'templating' | 'annotations' | 'schemaVersion'>> & {
    __inputs: Input[];
    __elements: Record<string, never>;
    __requires: Requirement[];
    schemaVersion: 42;
    panels: (
      | Panel<'timeseries', timeSeries.Options, timeSeries.FieldConfig>
      | Panel<'stat', stat.Options, never>
      | Panel<'bargauge', barGauge.Options, never>
      | Panel<'state-timeline', stateTimeline.Options, stateTimeline.FieldConfig>
      | Row
    )[];
    templating: { list: Variable[] };
    annotations: { list: Annotation[] };
  }
>;
