package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
)

// CheckPprof says what is wrong with an address for profiles. They show what is in
// memory, prompts and keys too, and cost CPU: they are for who is on the machine.
func CheckPprof(flag, addr string) error {
	if at, err := netip.ParseAddrPort(addr); err != nil || !at.Addr().Unmap().IsLoopback() {
		return fmt.Errorf("%s %s: must be a loopback address such as 127.0.0.1:6060", flag, addr)
	}
	return nil
}

// ServePprof serves net/http/pprof on a port of its own until ctx ends. The error
// is that of [CheckPprof], or of listening. (The package puts itself on
// http.DefaultServeMux as well, which nothing of ours serves.)
func ServePprof(ctx context.Context, flag, addr string, log *slog.Logger) error {
	if err := CheckPprof(flag, addr); err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	at, err := ServeBeside(ctx, flag, addr, local(mux), log)
	if err != nil {
		return err
	}
	log.Info("profiles are served", "address", "http://"+at.String()+"/debug/pprof/")
	return nil
}

// ServeBeside serves a handler on a port of its own until ctx ends, over HTTP/1.1 and
// in the clear. The error is that of listening, and names the flag.
func ServeBeside(ctx context.Context, flag, addr string, h http.Handler, log *slog.Logger) (net.Addr, error) {
	l, err := Server{Listen: addr, ListenFlag: flag}.Open(ctx)
	if err != nil {
		return nil, err
	}
	srv := Server{Handler: h, Log: log}.newHTTP1()
	context.AfterFunc(ctx, func() { srv.Close() })
	go srv.Serve(l)
	return l.Addr(), nil
}

// local refuses what a browser on this machine sends for somebody else's page: by
// a name that was made to point here, or from another site.
func local(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.Host)
		if err != nil {
			host = r.Host
		}
		ip, err := netip.ParseAddr(host)
		named := host == "localhost" || err == nil && ip.Unmap().IsLoopback()
		if site := r.Header.Get("Sec-Fetch-Site"); !named || site != "" && site != "none" && site != "same-origin" {
			http.Error(w, "Profiles are served to this machine only.", http.StatusForbidden)
			return
		}
		h.ServeHTTP(w, r)
	})
}
