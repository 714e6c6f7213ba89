// Package alerts holds the rules for Prometheus: what it records for the
// dashboard, and when it alerts. The files are used unchanged by vllm-stack and
// by a cluster's Prometheus.
package alerts

import "embed"

// Files are the rule files, all in the root.
//
//go:embed *.yml
var Files embed.FS
