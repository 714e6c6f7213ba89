package gateway

import "net/http"

// Reload is a stand-in.
func (g *Gateway) Reload(cfg Config) error { return cfg.Validate() }

// ReloadFailed is a stand-in.
func (g *Gateway) ReloadFailed(error) {}

// Metrics is a stand-in.
func (g *Gateway) Metrics() http.Handler { return g.scrape }
