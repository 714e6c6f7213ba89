// Package dashboards holds the Grafana dashboard, so that one file is what a
// person imports, what a cluster provisions and what vllm-stack draws.
package dashboards

import _ "embed"

// JSON is vllm-gateway.json, unchanged.
//
//go:embed vllm-gateway.json
var JSON []byte
