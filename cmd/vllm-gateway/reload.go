package main

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/vllm-gateway/vllm-gateway/internal/daemon"
	"github.com/vllm-gateway/vllm-gateway/internal/gateway"
)

// reloader takes changes of the configuration: all of it, or nothing.
type reloader struct {
	gateway *gateway.Gateway
	current *settings
	log     *slog.Logger
}

// load reads everything anew. What it returns takes it, or says why not.
func (r *reloader) load(files *daemon.Files) (apply func()) {
	next, err := settle(r.current.typed, r.current.given, files)
	return func() {
		if err == nil {
			err = next.explain(errors.Join(r.current.bars(next)...))
		}
		if err == nil {
			err = next.explain(r.gateway.Reload(next.config(r.log)))
		}
		if err != nil {
			r.gateway.ReloadFailed(err)
			return
		}
		next.warn(r.log)
		r.current = next
	}
}

// bars are what keeps other settings from taking the place of these without a
// restart.
func (s *settings) bars(next *settings) []error {
	var wrong faults
	for _, v := range []struct {
		field    string
		now, new any
	}{
		{"Listen", s.Listen, next.Listen},
		{"MetricsListen", s.MetricsListen, next.MetricsListen},
		{"TLSCert", s.TLSCert, next.TLSCert},
		{"TLSKey", s.TLSKey, next.TLSKey},
		{"DrainDelay", s.DrainDelay, next.DrainDelay},
		{"DrainTimeout", s.DrainTimeout, next.DrainTimeout},
	} {
		if v.now == v.new {
			continue
		}
		says := fmt.Sprintf("a change from %q to %q takes a restart; until then nothing of the new file is taken", fmt.Sprint(v.now), fmt.Sprint(v.new))
		if next.lines[v.field] > 0 {
			wrong.add(v.field, "%s", says)
			continue
		}
		for _, k := range fromFile { // it was taken out, and so has no line
			if k.field == v.field {
				wrong.add("", "%s: %s: %s", s.Config, k.key, says)
			}
		}
	}
	if len(s.gateway.Callers) > 0 && len(next.gateway.Callers) == 0 {
		wrong.add("", "%s: there are no keys any more, so that everybody might use the gateway; if that is meant, restart it", s.Config)
	}
	return wrong
}
